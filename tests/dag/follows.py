"""What follows what, written down once and by hand: the tests compare it with the real Snakefile."""

from collections.abc import Iterable
from dataclasses import dataclass

FOLLOWERS: dict[str, tuple[str, ...]] = {
    "templates": ("atlas", "operator_ribbon", "preprocess_bucket"),
    "atlas": ("operator_parcels", "interpret_model"),
    "operator_parcels": ("parcellate_bucket",),
    "operator_ribbon": ("flatmap_bucket",),
    "operator_flat": ("flatmap_bucket",),
    "operator_meshes": ("flatmap_bucket",),
    "preprocess_bucket": (
        *("parcellate_bucket", "flatmap_bucket", "clips_bucket", "shard_bucket"),
        *("pages_bucket", "cohort_page", "report_page"),
    ),
    "parcellate_bucket": ("augment_bucket", "shard_bucket", "cohort_page", "report_page"),
    "flatmap_bucket": ("clips_bucket", "report_page"),
    "clips_bucket": ("shard_bucket", "snapshot"),
    "augment_bucket": ("snapshot",),
    "shard_bucket": ("snapshot",),
    "snapshot": ("report_page",),  # models read the frozen one
    "freeze_shards": ("freeze",),
    "freeze": (
        *("train_model", "evaluate_model", "few_shot_model", "zero_shot_model", "interpret_model"),
        *("train_ablation", "evaluate_ablation", "ablation_table", "report_page"),
    ),
    "train_model": ("evaluate_model", "few_shot_model", "zero_shot_model", "interpret_model"),
    "train_ablation": ("evaluate_ablation",),
    "evaluate_ablation": ("ablation_table",),
    **dict.fromkeys(("evaluate_model", "few_shot_model", "zero_shot_model", "interpret_model"), ("report_page",)),
    "ablation_table": ("report_page",),
    "pages_bucket": ("ledger",),
    "cohort_page": ("ledger",),
    "report_page": ("ledger",),
    "ledger": (),
}
"""Rule -> the rules that read its outputs."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """The jobs of a project: one per bucket, atlas, model or variant, as the name of a rule says.

    Parameters
    ----------
    buckets, atlases, models, explained, variants : tuple of str
        Wildcards of the rules; only the first atlas is drawn, and only explained models are.
    frozen : bool
        Whether training reads a frozen snapshot; else it follows the rolling one.
    few : bool
        Whether few-shot and zero-shot tables are configured.
    """

    buckets: tuple[str, ...]
    atlases: tuple[str, ...] = ("Schaefer2018-100Parcels7Networks",)
    models: tuple[str, ...] = ("brainmass", "fmri_mae", "fm_app")
    explained: tuple[str, ...] = ("brainmass",)
    variants: tuple[str, ...] = ()
    frozen: bool = True
    few: bool = False

    def jobs(self, rule: str) -> set[str]:
        """Return every job of a rule."""
        return {f"{rule} {value}".strip() for value in self._values(rule)}

    def after(self, *jobs: str, kept: bool = False) -> set[str]:
        """Return jobs and everything that follows them.

        Where clips are cut anew and their frames are gone (not ``kept``), the flat maps are made again, too.
        """
        found: set[str] = set()
        waiting = [*jobs]
        while waiting:
            job = waiting.pop()
            if job in found:
                continue
            found.add(job)
            waiting += self._next(job)
            if job.startswith("clips_bucket") and not kept:
                waiting.append(job.replace("clips", "flatmap"))
        return found

    def _next(self, job: str) -> Iterable[str]:
        rule, _, value = job.partition(" ")
        followers = FOLLOWERS[rule] if self.frozen or rule != "snapshot" else (*FOLLOWERS[rule], *FOLLOWERS["freeze"])
        for follower in followers:
            if follower == "interpret_model" and rule == "atlas" and value != self.atlases[0]:
                continue
            values = self._values(follower)
            shared = self._kind(rule) == self._kind(follower) and self._kind(rule) != ""
            if shared:
                values = [value] if value in values else []
            yield from (f"{follower} {one}".strip() for one in values)

    def _kind(self, rule: str) -> str:
        if rule.endswith(("_bucket", "_model", "_ablation")):
            return rule.rpartition("_")[2]
        return "atlas" if rule in ("atlas", "operator_parcels") else ""

    def _values(self, rule: str) -> list[str]:
        if rule in ("few_shot_model", "zero_shot_model") and not self.few:
            return []
        if rule == "ablation_table" and not self.variants:
            return []
        if rule == "interpret_model":
            return [*self.explained]
        kinds = {"bucket": self.buckets, "atlas": self.atlases, "model": self.models, "ablation": self.variants}
        return [*kinds.get(self._kind(rule), ("",))]
