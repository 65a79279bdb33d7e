"""The `bitc` command and how its errors look.

Results go to stdout, everything else to stderr. An error is a line of reason and a line of advice; the exit code says
who is at fault: 2 the call, 3 the model, 4 the target, 5 the toolchain, 70 bitc itself.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from typing import Any

import click

from bitc import __version__
from bitc.cli.commands import COMMANDS
from bitc.errors import BitcError, InternalError, UnsupportedOp


class _Group(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["json"] = "--json" in args  # an error may come before the command has parsed its options
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        gc.set_threshold(200_000, 20, 20)  # plans are many small objects and few cycles: a tenth less time
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # `bitc inspect … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except BitcError as error:
            _fail(error, ctx.meta["json"])
        except (MemoryError, RecursionError) as error:
            what = f"{type(error).__name__} while working on this model"
            _fail(InternalError(what, hint="report it with the model"), ctx.meta["json"])
        except Exception as error:
            if os.environ.get("BITC_DEBUG"):
                traceback.print_exc()
            what = " ".join(f"{type(error).__name__}: {error}".split())
            hint = "a bug in bitc: report it with the model; BITC_DEBUG=1 shows the traceback"
            _fail(InternalError(what, hint=hint), ctx.meta["json"])


def _fail(error: BitcError, as_json: bool) -> None:
    if as_json:
        about: dict[str, Any] = {
            "kind": type(error).__name__,
            "what": error.what,
            "where": error.where,
            "hint": error.hint,
            "detail": error.detail,
        }
        document: dict[str, Any] = {"ok": False, "error": about}
        if isinstance(error, UnsupportedOp):
            document["unsupported"] = [vars(n) for n in error.nodes]
        click.echo(json.dumps(document))
    click.echo(f"error: {error}", err=True)
    for line in error.detail.splitlines():
        click.echo(f"  {line}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    sys.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bitc")
def main() -> None:
    """Compile binary neural networks from ONNX to plain C for microcontrollers, NEON and WebAssembly."""


for command in COMMANDS:
    main.add_command(command)
