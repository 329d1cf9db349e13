"""What one job of each stage costs: measured figures, the one table behind `boldmill plan` and the rules' resources.

Times are CPU seconds of one core. They were measured on two cores of an AMD EPYC, one thread a job, from records and
benchmarks of complete runs; :attr:`Cost.source` says which. A figure per volume holds for an output grid of 2 mm and
scales with the number of its voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

REFERENCE_MM = 2.0
"""Resolution at which the figures per volume hold."""

DEMO = "demo cohort: 19 scans of 150 and 652 volumes, 4 mm"
REAL = "2 real scans of 20 and 78 volumes, 2 mm"
LONG = "1,200 volumes of 2 mm"
ABIDE = "690 series of ABIDE, 111 parcels"
ONE = "a 1 mm T1w with 100 volumes of 3 mm"
MEASURED_ON = (DEMO, REAL, LONG, ABIDE, ONE)
"""What the figures were measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one job has to do.

    Parameters
    ----------
    scans, volumes : int
        Scans of images, and volumes of all of them.
    subjects : int
        Subjects with a scan of images.
    tables : int
        Scans that are tables of parcel series.
    longest : int
        Volumes of the longest scan of images.
    flops : float
        Operations of a training, in all.
    """

    scans: int = 0
    volumes: int = 0
    subjects: int = 0
    tables: int = 0
    longest: int = 0
    flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Return the work of two jobs together."""
        return Work(
            scans=self.scans + other.scans,
            volumes=self.volumes + other.volumes,
            subjects=self.subjects + other.subjects,
            tables=self.tables + other.tables,
            longest=max(self.longest, other.longest),
            flops=self.flops + other.flops,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Measured figures of one stage.

    Parameters
    ----------
    job_s, subject_s, scan_s, volume_s, table_s : float
        CPU seconds per job (start-up included), subject, scan, volume and table of parcel series.
    base_mib, longest_mib, row_mib : float
        Peak memory: of any job, per volume of the longest scan, and per scan or table of the job.
    subject_mib, scan_mib, volume_mib, table_mib : float
        Disk that stays, per subject, scan, volume and table.
    temporary_mib : float
        Disk per volume until the next stage has read it, or for good where the configuration keeps it.
    pool : bool
        Whether threads work on whole subjects at the same time, each with its own memory.
    gpu : bool
        Whether its rule asks for a GPU.
    tables : bool
        Whether it works on tables of parcel series too.
    source : str
        What the figures were measured on.
    """

    job_s: float
    subject_s: float = 0.0
    scan_s: float = 0.0
    volume_s: float = 0.0
    table_s: float = 0.0
    base_mib: float
    longest_mib: float = 0.0
    row_mib: float = 0.0
    subject_mib: float = 0.0
    scan_mib: float = 0.0
    volume_mib: float = 0.0
    table_mib: float = 0.0
    temporary_mib: float = 0.0
    pool: bool = False
    gpu: bool = False
    tables: bool = True
    source: str

    def seconds(self, work: Work, voxels: float = 1.0) -> float:
        """Return the CPU seconds of a job; ``voxels`` of the output grid, relative to 2 mm."""
        volumes = self.volume_s * voxels * work.volumes
        return (
            self.job_s
            + self.subject_s * work.subjects
            + self.scan_s * work.scans
            + volumes
            + self.table_s * work.tables
        )

    def memory_mib(self, work: Work, threads: int = 1, voxels: float = 1.0) -> float:
        """Return the peak memory of a job, MiB."""
        one = self.base_mib + self.longest_mib * max(voxels, 0.25) * work.longest
        at_once = max(1, min(threads, work.subjects)) if self.pool else 1
        return one * at_once + self.row_mib * (work.scans + work.tables)

    def disk_mib(self, work: Work, kept: float = 0.0) -> float:
        """Return what a job leaves on the disk, MiB; ``kept``: of 4D images the configuration keeps, per volume."""
        return (
            self.subject_mib * work.subjects
            + self.scan_mib * work.scans
            + (self.volume_mib + kept) * work.volumes
            + self.table_mib * work.tables
        )


COSTS: dict[str, Cost] = {
    "templates": Cost(job_s=18, base_mib=540, source=REAL),
    "atlas": Cost(job_s=1.5, base_mib=170, source=REAL),
    "operator_parcels": Cost(job_s=0.6, base_mib=70, source=REAL),
    "operator_ribbon": Cost(job_s=1.5, base_mib=275, source=REAL),
    "operator_flat": Cost(job_s=2, base_mib=155, source=REAL),
    "operator_meshes": Cost(job_s=3, base_mib=160, source=DEMO),
    "preprocess": Cost(
        job_s=3, subject_s=45, scan_s=15, volume_s=0.12,
        base_mib=1650, longest_mib=1.0,
        subject_mib=36, scan_mib=2,
        pool=True, tables=False,
        source=f"{REAL}; {LONG}; {ONE}; disk: {DEMO}",
    ),
    "parcellate": Cost(
        job_s=1.5, scan_s=1.9, volume_s=0.05, table_s=0.01,
        base_mib=330, longest_mib=0.8,
        volume_mib=0.001, table_mib=0.17,
        source=f"{REAL}; {DEMO}; memory: {LONG}; tables: {ABIDE}",
    ),
    "flatmap": Cost(
        job_s=1.5, scan_s=2.9, volume_s=0.04, base_mib=350, longest_mib=0.8, scan_mib=1.4, temporary_mib=0.3,
        tables=False,
        source=f"{REAL}; {DEMO}; memory: {LONG}",
    ),
    "augment": Cost(
        job_s=0.5, scan_s=0.005, table_s=0.004, base_mib=135, row_mib=0.5, scan_mib=0.08, table_mib=0.095,
        source=f"{DEMO}; {ABIDE}",
    ),
    "clips": Cost(
        job_s=0.5, volume_s=0.0011, base_mib=290, longest_mib=0.4, volume_mib=0.26, tables=False,
        source=f"{DEMO} (as part of the shards)",
    ),
    "shards": Cost(
        job_s=0.5, scan_s=0.005, table_s=0.005,
        base_mib=290, scan_mib=0.1, table_mib=0.1,
        source=f"{DEMO}; {ABIDE}",
    ),
    "pages": Cost(job_s=2, scan_s=1.7, base_mib=205, scan_mib=0.55, tables=False, source=DEMO),
    "snapshot": Cost(job_s=0.6, scan_s=0.0005, table_s=0.0005, base_mib=140, row_mib=0.01, source=f"{DEMO}; {ABIDE}"),
    "freeze_shards": Cost(
        job_s=0.6, volume_s=0.0004, table_s=0.0005, base_mib=140, row_mib=0.01,
        source="links; hashing the shards at 0.7 GB/s; memory as for the snapshot",
    ),
    "freeze": Cost(job_s=0.6, scan_s=0.0005, table_s=0.0005, base_mib=140, row_mib=0.01, source="as the snapshot"),
    "train_brainmass": Cost(
        job_s=5, base_mib=900, row_mib=0.15, gpu=True, source=f"{DEMO}; {ABIDE}; time from the operations of a step"
    ),
    "train_fmri_mae": Cost(job_s=5, base_mib=780, gpu=True, source=f"{DEMO}; time from the operations of a step"),
    "train_fm_app": Cost(
        job_s=5, base_mib=530, row_mib=0.2, gpu=True,
        source=f"{DEMO}; time from the operations of a step",
    ),
    "evaluate": Cost(
        job_s=35, scan_s=0.3, table_s=0.15, base_mib=600, row_mib=0.3, gpu=True,
        source=f"{DEMO}; {ABIDE} (shared cores)",
    ),
    "few_shot": Cost(
        job_s=8, scan_s=0.25, table_s=0.25, base_mib=500, row_mib=0.4, gpu=True,
        source=f"{DEMO}; {ABIDE}",
    ),
    "zero_shot": Cost(
        job_s=8, scan_s=0.05, table_s=0.05, base_mib=500, row_mib=0.45, gpu=True,
        source=f"{DEMO}; {ABIDE}",
    ),
    "interpret": Cost(job_s=7, scan_s=0.1, table_s=0.1, base_mib=700, row_mib=0.4, gpu=True, source=DEMO),
    "ablation": Cost(job_s=3, base_mib=300, source="few rows"),
    "cohort": Cost(job_s=1, scan_s=0.05, table_s=0.001, base_mib=150, row_mib=0.05, source=f"{DEMO}; {ABIDE}"),
    "report": Cost(job_s=9, scan_s=0.1, table_s=0.003, base_mib=250, row_mib=0.05, source=f"{DEMO}; {ABIDE}"),
    "ledger": Cost(job_s=0.5, scan_s=0.005, table_s=0.003, base_mib=145, row_mib=0.2, source=f"{DEMO}; {ABIDE}"),
}  # fmt: skip
"""The measured figures by stage (:data:`boldmill.stages.STAGES`)."""

CPU_GFLOPS = 60.0
"""Sustained rate of training on two cores (BrainMass S and L, fp32), 1e9 operations per second."""

GPU_TFLOPS = 20.0
"""Assumed sustained rate of one data-centre GPU, 1e12 operations per second: not measured, and the plan says so."""


def voxels_of(resolution: float) -> float:
    """Return the number of voxels of a grid relative to that of 2 mm.

    >>> voxels_of(4.0)
    0.125
    """
    return float((REFERENCE_MM / resolution) ** 3)


def image_mib(resolution: float) -> float:
    """Return the disk of one volume of a 4D image, MiB: float32 on a template grid, compressed by a third (assumed).

    ``resolution`` is the voxel size, mm; the box of the MNI templates is 182 x 218 x 182 mm.
    """
    return float(182 * 218 * 182 / resolution**3 * 4 * 2 / 3 / 2**20)


def training_s(work: Work) -> float:
    """Return the seconds of a training on two cores without a GPU."""
    return work.flops / (CPU_GFLOPS * 1e9)
