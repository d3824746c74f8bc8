"""For colcon (ament_python)."""

from setuptools import setup

NAME = "mier_ros2"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/mier.launch.py"]),
        (f"share/{NAME}/config", ["config/cheetah.yaml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="The maintainers of mier",
    maintainer_email="maintainers@example.org",
    description="Acts by a session of the MIER adaptation service, and reports to it what happened.",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"mier_node = {NAME}.node:main"]},
)
