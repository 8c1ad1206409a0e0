"""What becomes of an environment.yml where the site has no conda mirror."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from binder_onprem.config.frozen import Frozen

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]
_Requirement = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{0,200}$")]


class Conda(Frozen):
    """Building environment.yml without conda."""

    from_pypi: bool = Field(
        default=False, description="without mirrors.conda, build an environment.yml whose packages all have known names on PyPI from there, by uv"
    )
    names: dict[_Name, _Requirement] = Field(
        default_factory=dict,
        description="map of conda package: requirement on PyPI, beside the known ones; an empty one leaves the package out",
    )
