"""What a person may choose, and what a link has chosen, as the pages show it. Pure but for who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from binder_onprem.choosing import may, open_to

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from binder_onprem.choice import Choice
    from binder_onprem.config import Config
    from binder_onprem.config.choice import Profile
    from binder_onprem.model import Client

    Words = Callable[[str], str]


def asks(chosen: Choice, client: Client, config: Config) -> bool:
    """Whether the page must ask before the launch: several profiles are there and the link names none."""
    return not chosen.profile and len(open_to(client, config.choice.profiles)) > 1


def offered(chosen: Choice, client: Client, config: Config, words: Words) -> dict[str, Any]:
    """Profiles and data sets for the page that asks.

    Args:
        chosen: Of the link.
        client: Who asks.
        config: What there is.
        words: Translates.
    """
    choices = config.choice
    profiles = [(name, choices.profiles[name]) for name in open_to(client, choices.profiles)]
    data = [(name, choices.data[name]) for name in open_to(client, choices.data)]
    return {
        "profiles": [{"name": name, "title": profile.title or name, "what": resources(profile, config, words)} for name, profile in profiles],
        "images": [{"name": name, "title": choices.images[name].title or name} for name in open_to(client, choices.images)],
        "project": config.projects.enabled and client.owner is not None and may(client, config.projects),
        "data": [{"name": name, "title": one.title or name, "place": choices.place(name), "chosen": name in chosen.data} for name, one in data],
    }


def resources(profile: Profile, config: Config, words: Words) -> str:
    """``4 GiB of memory, 2 processors, nvidia.com/gpu=all``."""
    memory = int(profile.memory or config.session.memory) / 1024**3
    cpus = profile.cpus or config.session.cpus
    told = [f"{memory:.3g} {words('GiB of memory')}", f"{cpus:g} {words('processors')}"]
    return ", ".join([*told, *profile.devices])


def told(chosen: Choice, config: Config, words: Words) -> str:
    """What a link has chosen, in a line; "" for nothing."""
    choices = config.choice
    titles: list[tuple[str, Mapping[str, Any], tuple[str, ...]]] = [
        (words("Profile"), choices.profiles, (chosen.profile,) if chosen.profile else ()),
        (words("Image"), choices.images, (chosen.image,) if chosen.image else ()),
        (words("Data"), choices.data, chosen.data),
    ]
    said = [f"{kind}: {', '.join(listed[name].title or name for name in names)}" for kind, listed, names in titles if names]
    said += [f"{words('Project')}: {chosen.project}"] if chosen.project else []
    return " · ".join([*said, *(f"{name}={value}" for name, value in chosen.env)])
