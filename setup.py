"""Packages, dependencies and the console script."""

from setuptools import find_packages, setup

# The oldest versions with which the tests passed (torch: 2.13), and why no older one will do.
DEPENDENCIES = [
    "torch>=2.3",  # the first that runs with numpy 2
    "numpy>=1.26",  # the first with wheels for Python 3.12
    "scipy>=1.14",  # Rotation.from_quat(scalar_first=...)
    "h5py>=3.11",  # the first that runs with numpy 2
    "hydra-core>=1.3.2,<1.4",  # main.py asks the override parser and the sweeper of 1.3 what a sweep will run
    "omegaconf>=2.3",  # unions in a schema
    "mujoco>=3.13",  # 3.10 and older drop boxes from between flat palms (tests/test_validation.py)
    "trimesh>=4.6",  # load_scene
    "networkx>=2.8",  # trimesh turns faces and closes holes with it (mode=objects); torch needs it as well
    "pyyaml>=6.0",  # writes the settings into the run folder
    "charset-normalizer>=3.0",  # trimesh reads OBJ files that are not UTF-8 with it
    "jinja2>=3.1",  # fills the page of mode=report and the YAML of mode=hand; torch brings it along
    "pillow>=10.1",  # writes animations, with text of any size, and pictures of grasps
    "rich>=13.0",  # the panel of a run
    "jaxtyping>=0.3.2",  # leaves quoted annotations to type checkers
    "manifold3d>=3.0",  # boolean union of the bodies of a mesh (object.interior_faces=remove)
]

# Compiles the fused kernels, which make a step ten times as fast, for the CPU and for CUDA; where it has a wheel.
WARP = (
    "warp-lang>=1.9; (sys_platform == 'linux' and platform_machine in 'x86_64 aarch64') "
    "or (sys_platform == 'win32' and platform_machine == 'AMD64') "
    "or (sys_platform == 'darwin' and platform_machine == 'arm64')"
)
PYARROW = "pyarrow>=16.0"  # writes Parquet; the first that runs with numpy 2; large, so an extra
DECIMATE = "fast-simplification>=0.1.7"  # decimates meshes for the page of mode=view
COACD = "coacd>=1.0.14"  # decomposes meshes into convex pieces; this version was seen to repeat its result
MUJOCO_WARP = "mujoco-warp==4.0.0"  # simulates on GPUs (validation=bench_warp); its results change between versions
RAY = "ray>=2.40"  # runs a call on the nodes of a cluster (engine=ray)
SUBMITIT = "submitit>=1.5"  # sends jobs to SLURM and queues them again (hydra/launcher=submitit_slurm)
TENSORBOARD = "tensorboard>=2.10"  # writes and shows its event files (logger=tensorboard)

setup(
    name="bimangrasp",
    version="0.1.0",
    description="Exact quotas of bimanual dexterous grasps from object meshes",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["bimangrasp", "bimangrasp.*", "scale", "scale.*", "conf"]),
    py_modules=["main"],
    package_data={
        "bimangrasp": ["assets/**/*", "hand_setup/*.jinja", "visualization/assets/*"],
        "conf": ["*.yaml", "*/*.yaml", "*/*/*.yaml"],
        "scale": ["report/pages/*"],
    },
    install_requires=[*DEPENDENCIES, WARP],
    extras_require={
        "gpu": [MUJOCO_WARP],
        "fast": [],  # brought Warp; for commands written then
        "objects": [COACD],
        "parquet": [PYARROW],
        "ray": [RAY],
        "slurm": [SUBMITIT],
        "tensorboard": [TENSORBOARD],
        "view": [DECIMATE],
        "dev": [
            COACD,
            DECIMATE,
            MUJOCO_WARP,
            RAY,
            SUBMITIT,
            TENSORBOARD,
            "pytest>=8.0",
            "pytest-xdist>=3.7",  # runs the tests on several cores, files by name (--no-loadscope-reorder)
            "ruff>=0.6",  # the first whose formatter and rules agree with pyproject.toml
            "beartype>=0.20",  # checks the shapes while the tests run
            "hypothesis>=6.100",
            "playwright>=1.40",  # drives the browser that the page is tested in
            "rtree>=1.0",  # trimesh finds nearest points with it, an oracle of the tests
        ],
    },
    entry_points={"console_scripts": ["bimangrasp=main:main"]},
)
