"""Where `launch` keeps its own files on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """`data` is kept (hosts, ledger); `cache` can be deleted at any time when no local run is under way."""

    data: Path
    cache: Path

    @property
    def hosts_file(self) -> Path:
        return self.data / "hosts.toml"

    @property
    def profiles_file(self) -> Path:
        """A person's own profiles, beside those that come along."""
        return self.data / "profiles.toml"

    @property
    def ledger_file(self) -> Path:
        return self.data / "ledger.sqlite"

    @property
    def kept_logs(self) -> Path:
        """What was seen of runs' logs; of a host that is gone it is all there is."""
        return self.data / "logs"

    @property
    def local_workspace(self) -> Path:
        """`--host local` works here."""
        return self.cache / "launch"

    @property
    def checkpoints(self) -> Path:
        """What came from one host to be gone on from on another, by the run's id."""
        return self.cache / "checkpoints"

    @property
    def hashes_file(self) -> Path:
        """Digests of files that were hashed before."""
        return self.cache / "hashes.sqlite"

    @property
    def demo(self) -> Path:
        return self.cache / "demo"


def load() -> Settings:
    """From LAUNCH_HOME where it is set, else the platform's folders for an application's data and cache."""
    if home := os.environ.get("LAUNCH_HOME"):
        return Settings(Path(home).absolute(), Path(home).absolute() / "cache")
    import platformdirs

    return Settings(
        platformdirs.user_data_path("launch", appauthor=False), platformdirs.user_cache_path("launch", appauthor=False)
    )
