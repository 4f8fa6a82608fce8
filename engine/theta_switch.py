"""How theta counts, for the server and for each request."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby

from engine.errors import ConfigError
from engine.layers import Star
from engine.model_runner import ModelRunner
from engine.plan import Plan
from engine.theta import ThetaFactors
from engine.theta_setting import WITHOUT, ThetaSetting

_REMEMBERED = 16
"""Settings whose cached prefixes can still be found after another one was chosen."""


class ThetaSwitch:
    """Theta of one loaded model. A request keeps its setting. Belongs to the engine's thread."""

    def __init__(self, star: Star | None, runner: ModelRunner, model: str) -> None:
        """`star`: None for a model without theta. `model`: its name, for errors."""
        self.star = star
        self._runner = runner
        self._model = model
        self._roots: OrderedDict[float, int] = OrderedDict()
        """For each gamma above 0, the one chosen last at the end."""
        self._last_root = 0
        self.default = self._setting()

    def check(self, gamma: float | None = None) -> Star:
        """The theta that can be changed. Safe in any thread; raises `ConfigError`."""
        if self.star is None:
            raise ConfigError(f"{self._model} has no theta: convert it first, or give a --theta-path")
        if gamma is not None and not 0 <= gamma <= 1:
            raise ConfigError(f"gamma must lie between 0 and 1, not {gamma:g}")
        return self.star

    def change(self, *, enabled: bool | None = None, gamma: float | None = None) -> None:
        """Choose another setting for requests that come later and name none. Raises `ConfigError`."""
        star = self.check(gamma)
        if enabled is not None:
            star.enable(enabled)
            self._runner.record()
        if gamma is not None:
            star.set_gamma(gamma)
        self.default = self._setting()

    def replace(self, factors: Mapping[str, ThetaFactors]) -> None:
        """Go on with other factors, in all requests. Raises `ConfigError`."""
        self.check().load(factors)
        self._runner.record()

    def wanted(self, theta: bool | None) -> ThetaSetting:
        """The setting for a request that asks for theta or for none; None leaves that to the server."""
        if theta is None or self.star is None:
            return self.default
        return self._with_theta(self.star.gamma) if theta else WITHOUT

    def groups(self, plan: Plan) -> Iterator[tuple[ThetaSetting, Plan]]:
        """The chunks of each setting. A plan of several settings is sorted by them first, in place."""
        if len({chunk.sequence.theta.root for chunk in plan}) > 1:
            plan.sort(key=lambda chunk: chunk.sequence.theta.root)
        for _, chunks in groupby(plan, key=lambda chunk: chunk.sequence.theta.root):
            group = list(chunks)
            yield group[0].sequence.theta, group

    @contextmanager
    def applied(self, setting: ThetaSetting) -> Iterator[bool]:
        """Compute with a setting; yields whether recorded steps compute with it, too."""
        star = self.star
        if star is None or setting.root == self.default.root:
            yield True
            return
        enabled, gamma = star.enabled, star.gamma
        try:
            self._apply(star, setting.enabled, setting.gamma)
            yield setting.enabled == enabled
        finally:
            self._apply(star, enabled, gamma)

    def _apply(self, star: Star, enabled: bool, gamma: float) -> None:
        if enabled != star.enabled:
            star.enable(enabled)
        if gamma != star.gamma:
            star.set_gamma(gamma)

    def _setting(self) -> ThetaSetting:
        star = self.star
        return self._with_theta(star.gamma) if star is not None and star.enabled else WITHOUT

    def _with_theta(self, gamma: float) -> ThetaSetting:
        if gamma == 0:
            return WITHOUT
        if gamma not in self._roots:
            # Roots are no keys of blocks, which are above 0.
            self._last_root -= 1
            self._roots[gamma] = self._last_root
        self._roots.move_to_end(gamma)
        while len(self._roots) > _REMEMBERED:
            self._roots.popitem(last=False)
        return ThetaSetting(enabled=True, gamma=gamma, root=self._roots[gamma])
