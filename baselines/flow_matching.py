"""Flow matching (Lipman et al. 2023) with optimal-transport pairs inside the batch (Tong et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import ode
from baselines.networks import time_network
from trilemma_bench.contracts import DataSpec, Trainable
from trilemma_bench.errors import UsageError

COUPLINGS = ("ot", "independent")
SOLVERS = ("euler", "heun", "adaptive")
TIME_SCALE = 1000.0  # the time embedding resolves steps of about 1


class FlowMatching(Trainable):
    """Flow matching (Lipman et al. 2023; Tong et al. 2024): a velocity field that carries noise to data.

    Learns v(x_t, t) = E[x_1 − x_0 | x_t] for x_t = (1 − t) x_0 + t x_1, with noise x_0 and data x_1, by its mean
    squared error. coupling: 'ot' pairs noise and data by optimal transport inside each batch, which straightens the
    paths; 'independent' does not. solver: 'euler' or 'heun' with sampling_steps even steps, or 'adaptive' (RK45 with
    the tolerance). The networks' settings are those of `ddpm`.
    """

    sampling_settings: ClassVar[frozenset[str]] = frozenset({"sampling_steps", "solver", "tolerance"})
    training_defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 128,
        "budget": "51200kimg",
        "ema_decay": 0.9999,
        "lr_schedule": "constant",
        "lr_warmup_steps": 5000,
    }
    network: nn.Module

    def __init__(
        self,
        data: DataSpec,
        *,
        coupling: str = "ot",
        hidden: int = 128,
        layers: int = 4,
        fourier_features: int = 32,
        fourier_scale: float = 1.0,
        channels: int = 64,
        channel_multipliers: tuple[int, ...] = (1, 2, 2),
        res_blocks: int = 2,
        attention_resolutions: tuple[int, ...] = (16,),
        dropout: float = 0.1,
        lr: float = 2e-4,
        max_grad_norm: float = 1.0,
        sampling_steps: int = 50,
        solver: str = "euler",
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__(data)
        if coupling not in COUPLINGS or solver not in SOLVERS:
            raise UsageError(
                f"coupling = '{coupling}' is one of {', '.join(COUPLINGS)}; solver = '{solver}' one of {', '.join(SOLVERS)}"
            )
        if sampling_steps < 1 or tolerance <= 0:
            raise UsageError(f"sampling_steps = {sampling_steps}, tolerance = {tolerance}: both must be positive")
        self.coupling, self.solver, self.sampling_steps, self.tolerance = coupling, solver, sampling_steps, tolerance
        self.lr, self.max_grad_norm = lr, max_grad_norm
        self.unit = 1.0 if data.is_image else data.scale
        self.network = time_network(
            data,
            hidden=hidden,
            layers=layers,
            fourier_features=fourier_features,
            fourier_scale=fourier_scale,
            channels=channels,
            channel_multipliers=channel_multipliers,
            res_blocks=res_blocks,
            attention_resolutions=attention_resolutions,
            dropout=dropout,
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"network": torch.optim.Adam(self.network.parameters(), lr=self.lr, fused=True)}

    def training_step(
        self, batch: Tensor, step: int, optimizers: dict[str, torch.optim.Optimizer]
    ) -> dict[str, Tensor]:
        """One step on the conditional flow-matching loss (Lipman et al. 2023, eq. 9 and 21 with σ_min = 0)."""
        optimizer = optimizers["network"]
        data = batch / self.unit
        noise = torch.randn_like(data)
        if self.coupling == "ot":
            noise = noise[transport_order(noise, data)]
        time = torch.rand(len(data), device=data.device)
        column = time.view(-1, *[1] * (data.ndim - 1))
        predicted = self.network((1 - column) * noise + column * data, TIME_SCALE * time)
        loss = F.mse_loss(predicted, data - noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.max_grad_norm)
        optimizer.step()
        return {"loss": loss.detach()}

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        x = torch.randn((count, *self.data.shape), generator=rng, device=rng.device)
        if self.solver == "adaptive":
            x = ode.rk45(self._velocity, x, 0.0, 1.0, rtol=self.tolerance, atol=self.tolerance)
        else:
            times = [step / self.sampling_steps for step in range(self.sampling_steps + 1)]
            x = {"euler": ode.euler, "heun": ode.heun}[self.solver](self._velocity, x, times)
        return x.clamp(-1, 1) if self.data.is_image else x * self.unit

    def describe(self) -> str:
        return self.solver if self.solver == "adaptive" else f"{self.solver}, {self.sampling_steps} steps"

    def _velocity(self, x: Tensor, time: float) -> Tensor:
        return self.network(x, torch.full((1,), TIME_SCALE * time, device=x.device))


def transport_order(noise: Tensor, data: Tensor) -> Tensor:
    """The order of `noise` (N×…) that makes Σ|noise_i − data_i|² least: int64 N (Tong et al. 2024, §3.2)."""
    costs = torch.cdist(data.flatten(1).float(), noise.flatten(1).float()).square()
    _, order = linear_sum_assignment(costs.cpu().numpy())
    return torch.from_numpy(order).to(data.device)
