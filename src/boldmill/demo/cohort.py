"""Who is in the cohort: groups, sites, latent factors, phenotypes in words, and which runs each subject has.

Axis legend: S subjects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from boldmill.demo.parameters import Parameters
from boldmill.rng import generator

GROUPS = ("control", "patient")
SITES = ("A", "B")
DATASET = "demo"
DRAWS = 4000
GROUP_WEIGHT = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One subject with the latent values that drive images, connectivity and phenotypes.

    ``age_z`` and ``ability`` are standardised; ``motion`` scales head motion (1 = typical).
    """

    label: str
    group: str
    site: str
    sex: str
    age: float
    age_z: float
    ability: float
    motion: float

    @property
    def is_patient(self) -> bool:
        """Whether the planted group effect is switched on."""
        return self.group == "patient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One BOLD run; ``number`` is its run label (``None`` = no run entity)."""

    subject: str
    session: str | None = None
    number: int | None = None

    @property
    def stem(self) -> str:
        """File name up to the suffix, e.g. ``sub-03_task-rest_run-1``."""
        session = f"_ses-{self.session}" if self.session else ""
        number = f"_run-{self.number}" if self.number else ""
        return f"sub-{self.subject}{session}_task-rest{number}"

    @property
    def folder(self) -> str:
        """Folder of the run relative to the data set."""
        return f"sub-{self.subject}" + (f"/ses-{self.session}" if self.session else "") + "/func"

    @property
    def scan_id(self) -> str:
        """The scan's name over all data sets."""
        return f"{DATASET}_{self.stem}"


FIRST_BAD = 4
BAD_KINDS = ("truncated", "no_tr", "short")


def bad_runs(p: Parameters) -> dict[str, Run]:
    """Return the deliberately bad runs by kind: extra runs of sub-04, -05, -06 (of sub-04 in a tiny cohort)."""
    chosen: dict[str, Run] = {}
    for offset, kind in enumerate(BAD_KINDS):
        number = min(FIRST_BAD + offset, p.subjects)
        chosen[kind] = Run(subject=f"{number:02d}", number=2 + FIRST_BAD + offset - number)
    return chosen


def good_runs(p: Parameters) -> list[Run]:
    """Return every good run: sub-02 has two sessions, sub-03 two runs, subjects with a bad run a run label."""
    numbered = {run.subject for run in bad_runs(p).values()}
    runs: list[Run] = []
    for index in range(1, p.subjects + 1):
        label = f"{index:02d}"
        if index == 2:
            runs += [Run(subject=label, session="1"), Run(subject=label, session="2")]
        elif index == 3:
            runs += [Run(subject=label, number=1), Run(subject=label, number=2)]
        else:
            runs.append(Run(subject=label, number=1 if label in numbered else None))
    return runs


def subjects(p: Parameters) -> list[Subject]:
    """Return the subjects, with group balanced against site, sex, age, ability and motion.

    Sites, sexes, ages, abilities and motion are stratified once; of ``DRAWS`` random assignments the one whose largest
    absolute correlation between any two of them is smallest is kept (those with group count ``GROUP_WEIGHT`` times).
    """
    n = p.subjects
    draw = generator("demo", p.seed, "cohort")
    half = np.arange(n) % 2
    strata = (np.arange(n) + 0.5) / n
    best, best_value = np.empty((0, 0)), np.inf
    for _ in range(DRAWS):
        columns = np.stack([draw.permutation(half) for _ in range(3)] + [draw.permutation(strata) for _ in range(3)])
        correlation = np.abs(np.corrcoef(columns) - np.eye(6))
        value = max(correlation.max(), GROUP_WEIGHT * correlation[0].max())
        if value < best_value:
            best, best_value = columns, value
    group, site, sex, age, ability, motion = best
    from scipy.stats import norm

    return [
        Subject(
            label=f"{i + 1:02d}",
            group=GROUPS[int(group[i])],
            site=SITES[int(site[i])],
            sex="FM"[int(sex[i])],
            age=round(float(20 + 50 * age[i]), 1),
            age_z=float((age[i] - 0.5) * np.sqrt(12)),
            ability=float(norm.ppf(ability[i])),
            motion=float(0.8 + 0.45 * motion[i]),
        )
        for i in range(n)
    ]


DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "group": {
        "LongName": "Diagnostic group",
        "Description": "Whether the participant was recruited as a patient or as a healthy control",
        "Levels": {"control": "healthy control", "patient": "patient"},
    },
    "site": {
        "LongName": "Scanning site",
        "Description": "Scanner on which the participant was measured",
        "Levels": {"A": "site A, interleaved single-band BOLD", "B": "site B, two-band oblique BOLD"},
    },
    "age": {"LongName": "Age", "Description": "Age of the participant at the first scan", "Units": "year"},
    "sex": {
        "LongName": "Sex",
        "Description": "Sex of the participant as stated at recruitment",
        "Levels": {"F": "female", "M": "male"},
    },
    "cognition": {
        "LongName": "General cognitive ability",
        "Description": "Composite score of general cognitive ability over a battery of reasoning tasks; "
        "mean 100 and standard deviation 15 in the population",
        "Units": "IQ points",
    },
    "memory": {
        "LongName": "Verbal memory, delayed recall",
        "Description": "Number of words out of thirty that the participant recalled freely twenty minutes after "
        "hearing the list",
        "Units": "words",
    },
    "reaction_time": {
        "LongName": "Choice reaction time",
        "Description": "Median time the participant took to press the correct one of two keys after a visual cue; "
        "lower is faster",
        "Units": "ms",
    },
    "vocabulary": {
        "LongName": "Vocabulary",
        "Description": "Number of rare words the participant told apart from invented words in a vocabulary test",
        "Units": "items",
    },
    "mood": {
        "LongName": "Low mood during the last two weeks",
        "Description": "Sum of a depression questionnaire about sadness, loss of interest and tiredness; higher means "
        "lower mood",
        "Units": "points",
    },
    "anxiety": {
        "LongName": "Trait anxiety",
        "Description": "Sum of a questionnaire about how often the participant generally feels tense or worried; "
        "higher means more anxious",
        "Units": "points",
    },
    "sleep_quality": {
        "LongName": "Sleep quality during the last month",
        "Description": "Rating of sleep over the last month from its duration, disturbances and daytime tiredness; "
        "higher means worse sleep",
        "Units": "points",
    },
    "handedness": {
        "LongName": "Handedness strength",
        "Description": "Laterality quotient of preferred hand over ten everyday actions; 100 is entirely right-handed, "
        "-100 entirely left-handed",
        "Units": "percent",
    },
    "blood_pressure": {
        "LongName": "Systolic blood pressure",
        "Description": "Mean of three seated measurements of systolic arterial pressure on the day of the scan",
        "Units": "mmHg",
    },
    "physical_activity": {
        "LongName": "Physical activity",
        "Description": "Hours of moderate or vigorous exercise in a usual week, from a diary",
        "Units": "hour",
    },
}


def phenotypes(p: Parameters, people: list[Subject]) -> list[dict[str, str | float]]:
    """Return one row per subject: the columns of ``DESCRIPTIONS``, numbers derived from the latent factors with noise.

    Only ability, age and group carry information that is also in the connectivity; each phenotype has its own noise.
    """
    rows: list[dict[str, str | float]] = []
    for person in people:
        noise = generator("demo", p.seed, "phenotypes", person.label).standard_normal(10)
        patient = float(person.is_patient)
        mood = 6 + 5 * patient + 3 * noise[3]
        values = {
            "cognition": (100 + 15 * (0.97 * person.ability + 0.24 * noise[0]), 0),
            "memory": (19 + 3.5 * person.ability - 1.5 * person.age_z + 2.0 * noise[1], 0),
            "reaction_time": (430 - 28 * person.ability + 30 * person.age_z + 20 * noise[2], 0),
            "vocabulary": (32 + 4.0 * person.ability + 2.0 * person.age_z + 2.5 * noise[4], 0),
            "mood": (mood, 0),
            "anxiety": (38 + 1.2 * (mood - 8) + 4 * noise[5], 0),
            "sleep_quality": (6 + 0.3 * (mood - 8) + 1.8 * noise[6], 0),
            "handedness": (100 * np.tanh(1.2 + noise[7]), 0),
            "blood_pressure": (124 + 8 * person.age_z + 7 * noise[8], 0),
            "physical_activity": (4.5 - 0.8 * person.age_z - 0.6 * patient + 1.4 * noise[9], 1),
        }
        bounds = {"memory": 30, "vocabulary": 40}
        row: dict[str, str | float] = {
            "participant_id": f"sub-{person.label}",
            "group": person.group,
            "site": person.site,
            "age": person.age,
            "sex": person.sex,
        }
        for name, (value, digits) in values.items():
            floor = -100.0 if name == "handedness" else 0.0
            rounded = round(float(np.clip(value, floor, bounds.get(name, np.inf))), digits)
            row[name] = int(rounded) if digits == 0 else rounded
        rows.append(row)
    return rows
