"""Flow matching (Lipman et al. 2023) with optimal-transport pairs inside the batch (Tong et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from baselines import ode
from baselines.denoiser import Denoiser, column
from trilemma_bench.contracts import Count, DataSpec, Positive

TIME_SCALE = 1000.0  # the time embedding resolves steps of about 1


class FlowMatching(Denoiser):
    """Flow matching (Lipman et al. 2023; Tong et al. 2024): a velocity field that carries noise to data.

    Learns v(x_t, t) = E[x_1 − x_0 | x_t] for x_t = (1 − t) x_0 + t x_1, with noise x_0 and data x_1, by its mean
    squared error. coupling: 'ot' pairs noise and data by optimal transport inside each batch, which straightens the
    paths; 'independent' does not. solver: 'euler' or 'heun' with sampling_steps even steps, or 'adaptive' (RK45 with
    the tolerance).
    """

    sampling_settings: ClassVar[frozenset[str]] = Denoiser.sampling_settings | frozenset(
        {"sampling_steps", "solver", "tolerance"}
    )
    training_defaults: ClassVar[Mapping[str, Any]] = {**Denoiser.training_defaults, "budget": "51200kimg"}

    def __init__(
        self,
        data: DataSpec,
        *,
        coupling: Literal["ot", "independent"] = "ot",
        sampling_steps: Count = 50,
        solver: Literal["euler", "heun", "adaptive"] = "euler",
        tolerance: Positive = 1e-5,
        **settings: Any,
    ) -> None:
        super().__init__(data, **settings)
        self.coupling, self.solver = coupling, solver
        self.sampling_steps, self.tolerance = sampling_steps, tolerance
        self._noise = torch.empty(0)  # of the step at hand

    def before_step(self, batch: Tensor, **labels: Tensor) -> dict[str, Tensor]:
        """The noise of each sample: which is whose is decided on the host."""
        noise = torch.randn_like(batch)
        if self.coupling == "ot":
            noise = noise[transport_order(noise, batch / self.unit, **labels)]
        return {"noise": noise}

    def training_step(
        self,
        batch: Tensor,
        step: int,
        optimizers: dict[str, torch.optim.Optimizer],
        labels: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        named = {} if labels is None else {"labels": labels}
        self._noise = self.before_step(batch, **named)["noise"] if noise is None else noise
        return super().training_step(batch, step, optimizers, **named)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """The conditional flow-matching loss (Lipman et al. 2023, eq. 9 and 21 with σ_min = 0)."""
        noise = self._noise
        time = torch.rand(len(x), device=x.device)
        share = column(time, x)
        predicted = self.predict((1 - share) * noise + share * x, TIME_SCALE * time)
        return {"loss": F.mse_loss(predicted, x - noise)}

    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        if self.solver == "adaptive":
            return ode.rk45(self._velocity, noise, 0.0, 1.0, rtol=self.tolerance, atol=self.tolerance)
        times = [step / self.sampling_steps for step in range(self.sampling_steps + 1)]
        return {"euler": ode.euler, "heun": ode.heun}[self.solver](self._velocity, noise, times)

    def predictions(self) -> int | None:
        return {"euler": self.sampling_steps, "heun": 2 * self.sampling_steps}.get(self.solver)

    def describe_sampler(self) -> str:
        return self.solver if self.solver == "adaptive" else f"{self.solver}, {self.sampling_steps} steps"

    def _velocity(self, x: Tensor, time: float) -> Tensor:
        return self.predict(x, torch.full((1,), TIME_SCALE * time, device=x.device))


def transport_order(noise: Tensor, data: Tensor, labels: Tensor | None = None) -> Tensor:
    """The order of `noise` (N×…) that makes Σ|noise_i − data_i|² least: int64 N (Tong et al. 2024, §3.2).

    With labels (N) noise changes places inside each label only: were it matched across them, it would tell the label,
    and noise that is drawn without regard to labels would not carry to the right data (Cheng & Schwing 2025).
    """
    costs = torch.cdist(data.flatten(1).float(), noise.flatten(1).float()).square()
    if labels is not None:
        costs.masked_fill_(labels[:, None] != labels, torch.inf)
    _, order = linear_sum_assignment(costs.cpu().numpy())
    return torch.from_numpy(order).to(data.device)
