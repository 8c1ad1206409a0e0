"""The seams: what the logic asks of the outside world. Adapters satisfy these without inheriting from them."""

from binder_onprem.interfaces.images import Builder, BuildLog, LocalImage, LocalImages, Publication, Registry, StoredImage, Supply
from binder_onprem.interfaces.people import AccessToken, Accounts, Audit, StoredCredential
from binder_onprem.interfaces.records import ProjectStore, Rulings, Store, Used
from binder_onprem.interfaces.repositories import Clonable, Provider
from binder_onprem.interfaces.sessions import Activity, ChangedFiles, Engine, EngineContainer, Hub, Machines, Routes, SessionFiles, Usage, Volumes

__all__ = [
    "AccessToken",
    "Accounts",
    "Activity",
    "Audit",
    "BuildLog",
    "Builder",
    "ChangedFiles",
    "Clonable",
    "Engine",
    "EngineContainer",
    "Hub",
    "LocalImage",
    "LocalImages",
    "Machines",
    "ProjectStore",
    "Provider",
    "Publication",
    "Registry",
    "Routes",
    "Rulings",
    "SessionFiles",
    "Store",
    "StoredCredential",
    "StoredImage",
    "Supply",
    "Usage",
    "Used",
    "Volumes",
]
