"""What a stack consists of: its settings and its parts, worked out from where it lives and what a person gave."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from local_stack import edge, login, mongodb, oidc_provider, rabbitmq, s3, services
from local_stack.credentials import Credentials, load_credentials
from local_stack.errors import SettingError
from local_stack.part import Part, system_env
from local_stack.ports import SERVICE_OFFSETS, Ports

NOT_FOR_ALL = {"SESSION_KEYS", "SORI_TOKEN"}
"""What signs sessions goes to those alone that need it, and a person's own credential to no program."""


@dataclass(frozen=True)
class Plan:
    """The stack whose data is in `home`.

    `given` are settings by name (`RABBITMQ_URL`, `ANALYSIS_TIMEOUT`, …). They override the stack's own settings and go
    to every service. A back end that is named there is used instead of a local one. Raises SettingError.
    """

    home: Path
    ports: Ports
    replicas: int
    given: Mapping[str, str]
    only_backends: bool

    def __post_init__(self) -> None:
        if "S3_ENDPOINT_URL" in self.given and "AWS_ACCESS_KEY_ID" not in self.given:
            raise SettingError("S3_ENDPOINT_URL is given: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY too.")

    @cached_property
    def _own(self) -> Credentials:
        return load_credentials(self.home)

    @cached_property
    def settings(self) -> dict[str, str]:
        """The settings of the services, secrets included: what was given, else the stack's own."""
        defaults = {
            "RABBITMQ_URL": rabbitmq.amqp_url(self.ports, self._own),
            "MONGODB_URL": mongodb.mongodb_url(self.ports),
            "S3_ENDPOINT_URL": s3.s3_url(self.ports),
            "AWS_ACCESS_KEY_ID": self._own.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self._own.s3_secret_key,
            "AWS_REGION": "us-east-1",
            "S3_BUCKET_NAME": "sori",
            "TARGET_SERVER_URL": services.analysis_server_url(self.ports),
            "WEBHOOK_URL": f"{edge.edge_url(self.ports)}/tokens/webhook/analysis-complete",
            "WEBHOOK_SECRET": self._own.webhook_secret,
            "MAX_RESULT_BYTES": "1048576",
            "CORS_ORIGINS": "http://localhost:3000,http://localhost:5173",
            "EDGE_HOSTS": "",
            **login.settings(self.ports, self._own, self.given),
        }
        if "TARGET_SERVER_URL" not in self.given:
            # Recordings that wait for the stack's own analysis server wait in MongoDB, where the oldest is first.
            defaults["ANALYSIS_IN_FLIGHT"] = "8"
        return {name: self.given.get(name, value) for name, value in defaults.items()}

    @cached_property
    def parts(self) -> dict[str, Part]:
        """Every part that this stack starts, by name."""
        system = system_env(os.environ)
        parts = [*self._backends(system)]
        parts.append(edge.edge(self.home, self.ports, self.replicas, self.settings, system))
        if not self.only_backends:
            parts += self._services(system)
        return {part.name: part for part in parts}

    def _backends(self, system: Mapping[str, str]) -> Iterator[Part]:
        if "RABBITMQ_URL" not in self.given:
            yield rabbitmq.port_mapper(self.ports, system)
            yield rabbitmq.broker(self.home, self.ports, self._own, system)
        if "MONGODB_URL" not in self.given:
            yield mongodb.database(self.home, self.ports, system)
        if "S3_ENDPOINT_URL" not in self.given:
            yield s3.object_storage(self.home, self.ports, self.settings, system)
        if login.has_own_provider(self.given):
            roles_claim = self.given.get("OIDC_ROLES_CLAIM", login.ROLES_CLAIM)
            yield oidc_provider.provider(self.ports, roles_claim, system)

    def _services(self, system: Mapping[str, str]) -> Iterator[Part]:
        env = self._service_env(system)
        if "TARGET_SERVER_URL" not in self.given:
            yield services.analysis_server(self.ports, self.settings, env)
        for name in SERVICE_OFFSETS:
            for replica in range(1, self.replicas + 1):
                yield services.service(name, replica, self.ports, self.settings, env)

    def _service_env(self, system: Mapping[str, str]) -> dict[str, str]:
        env = {**system, **{name: value for name, value in self.given.items() if name not in NOT_FOR_ALL}}
        direct = ",".join(filter(None, (env.get("NO_PROXY"), "127.0.0.1,localhost")))
        return env | {"NO_PROXY": direct, "no_proxy": direct}
