"""The solvers: exact answers, and the order of convergence that each promises."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from baselines import ode

START = torch.tensor([[1.0, -2.0]], dtype=torch.float64)


def growth(x, t):
    return -x * math.cos(t)  # x(t) = x(0) exp(−sin t)


def exact(end):
    return START * math.exp(-math.sin(end))


@pytest.mark.parametrize(("solver", "order"), [(ode.euler, 1), (ode.heun, 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order):
    errors = []
    for steps in (64, 128):
        times = torch.linspace(0, 2, steps + 1, dtype=torch.float64).tolist()
        errors.append(float((solver(growth, START, times) - exact(2)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


def test_the_adaptive_solvers_step_is_of_fifth_order_and_its_estimate_of_the_fourths_error():
    """Dormand & Prince 1980: the solution that goes on is of order 5; its error estimate falls with step⁵."""
    ends, estimates = [], []
    for steps in (32, 64):
        x, step = START, 3 / steps
        for number in range(steps):
            slopes, x = ode._stages(growth, x, number * step, step, growth(x, number * step))
            if not number:
                estimates.append(float((step * ode._weighted(ode._ERROR, slopes)).abs().max()))
        ends.append(float((x - exact(3)).abs().max()))
    assert math.log2(ends[0] / ends[1]) == pytest.approx(5, abs=0.3)
    assert math.log2(estimates[0] / estimates[1]) == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_the_adaptive_solver_keeps_its_tolerance(tolerance):
    found = ode.rk45(growth, START, 0.0, 2.0, rtol=tolerance, atol=tolerance)
    assert float((found - exact(2)).abs().max()) < 20 * tolerance


def test_the_adaptive_solver_goes_backwards_too():
    back = ode.rk45(growth, exact(2.0), 2.0, 0.0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back, START, rtol=1e-7, atol=1e-7)


def test_the_adaptive_solver_needs_about_as_many_evaluations_as_scipys():
    calls = []

    def counted(x, t):
        calls.append(t)
        return growth(x, t)

    ode.rk45(counted, START, 0.0, 20.0, rtol=1e-6, atol=1e-6)
    peer = solve_ivp(lambda t, x: -x * math.cos(t), (0, 20), START[0].numpy(), rtol=1e-6, atol=1e-6)
    assert 0.8 < len(calls) / peer.nfev < 1.25


def test_a_velocity_that_jumps_without_bound_is_reported():
    with pytest.raises(ValueError, match="the step of the ODE solver vanished"):
        ode.rk45(lambda x, t: torch.full_like(x, math.nan if t > 0.5 else 1.0), START, 0.0, 1.0)


def test_euler_takes_one_evaluation_a_step_and_heun_two():
    for solver, evaluations in ((ode.euler, 1), (ode.heun, 2)):
        calls = []
        solver(lambda x, t: calls.append(t) or x, START, [0.0, 0.5, 1.0])  # noqa: B023
        assert len(calls) == 2 * evaluations
