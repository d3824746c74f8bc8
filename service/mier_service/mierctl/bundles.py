"""`mierctl bundles`: for robots that act by themselves: the key to trust, and the file where they never call."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mier_service.access.bundle_key import load_bundle_key, public_hex
from mier_service.acting.bundles import Contents, packed
from mier_service.data.files import write_durably
from mier_service.data.layout import Kind, content_files
from mier_service.mierctl.data_folder import DEFAULT_DATA, Data, StoreUrl, read_copy
from mier_service.mierctl.output import Json, Refused, note, print_json

app = typer.Typer(help="Signed bundles: what robots act with by themselves.", no_args_is_help=True)

BundleKey = Annotated[
    Path | None, typer.Option("--bundle-key", envvar="MIER_BUNDLE_KEY", help="As for `mier-serve`, if it has one.")
]


@app.command()
def key(data: Data = DEFAULT_DATA, bundle_key: BundleKey = None, as_json: Json = False) -> None:
    """Prints the public key that robots check bundles with. The private one is made if it is not there."""
    public_key = public_hex(load_bundle_key(data, bundle_key))
    if as_json:
        print_json({"public_key": public_key})
    else:
        print(public_key)


@app.command()
def export(
    session: Annotated[str, typer.Argument(help="Id of the session.")],
    file: Annotated[Path, typer.Argument(help="File to write.")],
    max_age_s: Annotated[
        float | None, typer.Option(help="Seconds after which it is too old; for ever if left out.")
    ] = None,
    data: Data = DEFAULT_DATA,
    store_url: StoreUrl = None,
    bundle_key: BundleKey = None,
) -> None:
    """Writes what the session acts with now to FILE; a service may be running."""
    if max_age_s is not None and not max_age_s > 0:
        raise Refused(f"expected --max-age-s above 0, got {max_age_s:g}")
    with read_copy(data, store_url) as store, store.read() as c:
        manifest = Contents.read(c, session).manifest(time.time(), max_age_s)
    sign = load_bundle_key(data, bundle_key).sign
    written = packed(manifest, content_files(data, Kind.POLICIES), sign)
    try:
        write_durably(file, written)
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}") from error
    note(f"{file}: version {manifest.acts.version} of session {session}, {len(written)} bytes")
