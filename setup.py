"""Finds the packages: `api/` is imported as `skerry`, and `runtime/` as `skerry.runtime`.

All else about the package is in pyproject.toml, which has no words for a folder whose packages
have another name in front.
"""

from setuptools import find_packages, setup

FOLDERS = {"skerry": "api", "skerry.runtime": "runtime"}

setup(
    package_dir=FOLDERS,
    packages=[
        name
        for package, folder in FOLDERS.items()
        for name in (package, *(f"{package}.{inner}" for inner in find_packages(folder)))
    ],
)
