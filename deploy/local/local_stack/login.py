"""What a stack with AUTH=required is given for its logins: keys for its own tokens, and whom it believes."""

import json
from collections.abc import Mapping

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from local_stack import oidc_provider
from local_stack.credentials import Credentials
from local_stack.errors import SettingError
from local_stack.ports import Ports

ROLES_CLAIM = "roles"
"""Where roles stand in a token, unless OIDC_ROLES_CLAIM says otherwise."""


def is_required(given: Mapping[str, str]) -> bool:
    """Whether callers must say who they are."""
    return given.get("AUTH") == "required"


def has_own_provider(given: Mapping[str, str]) -> bool:
    """Whether the stack needs an OpenID Connect provider of its own: a login is asked for, and no issuer was given."""
    return is_required(given) and "OIDC_ISSUERS" not in given


def settings(ports: Ports, own: Credentials, given: Mapping[str, str]) -> dict[str, str]:
    """The settings that a login needs, by name; empty when none is asked for."""
    if not is_required(given):
        return {}
    found = {"AUTH": "required", "SESSION_KEYS": own.session_keys}
    if has_own_provider(given):
        found |= {"OIDC_ISSUERS": oidc_provider.issuer(ports), "OIDC_AUDIENCES": oidc_provider.AUDIENCE}
    return found


def public_part(session_keys: str) -> str:
    """The keys without what signs: enough to know what they signed. Raises SettingError when they are no keys."""
    try:
        keys = [ECKey.import_key(key) for key in json.loads(session_keys)["keys"]]
    except (JoseError, ValueError, TypeError, KeyError):
        raise SettingError("SESSION_KEYS is no JWK Set of P-256 keys; sorictl session-keys makes one.") from None
    return json.dumps(KeySet(list(keys)).as_dict(private=False))
