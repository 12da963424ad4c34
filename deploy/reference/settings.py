"""Fields of `Settings` -> docs/reference/settings.md.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

from pydantic import SecretStr

from outhaul.cdc_reader.cli.settings import spelled
from outhaul.sink.settings import Settings
from outhaul.sink.settings.field_types import Tier
from outhaul.sink.settings.load import secrets
from outhaul.sink.settings.origin import rule
from outhaul.sink.settings.variables import CONFIG, FILE_SUFFIX, PREFIX, variable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

_HEAD = f"""# Settings

All processes and commands read the same settings, once, when they start. Set them as environment
variables, or in `outhaul.toml`, without the prefix and in lower case:

```toml
table = "public.outbox"
insert_timeout_s = "2m"

[more_tables]
"billing.outbox" = "billing_log"
```

The file is `outhaul.toml` in the working directory, or the file that `{CONFIG}` names. A
variable wins over the file. A secret may also be in a file of its own, which
`OUTHAUL_<NAME>{FILE_SUFFIX}` names: `OUTHAUL_POSTGRES_DSN_FILE=/run/secrets/dsn`.

- **Durations** are written `500ms`, `60s`, `2h`, `7d` or `1h30m`. A number without a unit is in
  seconds.
- **Sizes** are written `24MiB` or `50GB`: 1 GiB is 2^30 bytes, 1 GB is 10^9. A number without a unit
  is in bytes.

`outhaul settings` prints the value of every setting and where it came from. A process warns about
an `OUTHAUL_*` variable that it does not know, and names the nearest one that it knows. An unknown
name in `outhaul.toml` is an error (exit code 3).

Only `OUTHAUL_*` variables are settings. Variables of an app that runs in the same environment have no
effect: `CELERY_*`, `BROKER_URL`, `REDIS_*`, `FLOWER_*`, `DJANGO_SETTINGS_MODULE`,
`PROMETHEUS_MULTIPROC_DIR`. The same is true of the variables that Kubernetes makes of services, such as
`OUTHAUL_METRICS_PORT=tcp://10.0.0.7:9461`. These do have an effect, as their manuals say: the
[variables of libpq](https://www.postgresql.org/docs/current/libpq-envars.html), for what the DSN leaves
open; `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, for ClickHouse and Sentry; and `SENTRY_ENVIRONMENT`.
`outhaul doctor` names those of libpq and the proxies.

The code generates this page: `python -m outhaul.deploy.reference`.
"""

_TIERS = {
    Tier.ESSENTIAL: ("Essential", "Every pipeline sets these."),
    Tier.USEFUL: ("Useful", "Change these if you need what they do."),
    Tier.REST: ("Leave alone", "The defaults fit. Change one if a page of this documentation says so."),
}


def page() -> str:
    """Return the page."""
    return _HEAD + "".join(_section(tier) for tier in Tier)


def _section(tier: Tier) -> str:
    title, about = _TIERS[tier]
    rows = "".join(_row(name, field) for name, field in Settings.model_fields.items() if _tier(field) is tier)
    return f"\n## {title}\n\n{about}\n\n| setting | default | meaning |\n|---|---|---|\n{rows}"


def _tier(field: FieldInfo) -> Tier:
    extra = field.json_schema_extra
    return Tier(str(extra.get("tier", Tier.REST))) if isinstance(extra, dict) else Tier.REST


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{variable(name)}`", _default(name, field), " ".join(_meaning(name, field)))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _default(name: str, field: FieldInfo) -> str:
    if rule(name):
        usual = field.get_default(call_default_factory=True, validated_data={})
        return f"{_marked(rule(name))} (`{spelled(name, usual)}`)"
    value = field.get_default()
    text = value.get_secret_value() if isinstance(value, SecretStr) else spelled(name, value)
    return f"`{text}`" if text else ""


def _marked(text: str) -> str:
    return re.sub(rf"{PREFIX}\w+", r"`\g<0>`", text)


def _meaning(name: str, field: FieldInfo) -> Iterator[str]:
    yield str(field.description)
    choices = get_args(field.annotation)
    if choices and all(isinstance(one, str) for one in choices):
        yield f"One of {', '.join(f'`{one}`' for one in choices)}."
    if bounds := _bounds(name, field):
        yield f"{bounds}."
    if name in secrets():
        yield f"May be in a file: `{variable(name)}{FILE_SUFFIX}`."


def _bounds(name: str, field: FieldInfo) -> str:
    least, most = (
        next((value for one in field.metadata if (value := getattr(one, attribute, None)) is not None), None)
        for attribute in ("ge", "le")
    )
    return "" if most is None else f"`{spelled(name, least or 0)}` to `{spelled(name, most)}`"
