"""Old and new programs side by side: migrations only add, and say which old programs may go on."""

import ast
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.errors import SchemaError
from gateway.rabbitmq import _parse
from gateway.store import Store, schema
from gateway.store.tables import schema_floor

RELEASED = 7
"""Number of the last migration before the rule; those before made the first release."""
TAKES_AWAY = {"drop_table", "drop_column", "drop_constraint", "rename_table", "alter_column"}
CARELESS = """
def upgrade():
    op.drop_column("study", "patient_id")
    op.add_column("study", sa.Column("colour", sa.String(8), nullable=False))

def downgrade():
    op.drop_column("study", "colour")
"""


def test_a_program_goes_on_beside_a_newer_schema_that_only_added(store: Store) -> None:
    """The floor names a revision that it knows: no error, no upgrade. Raised above it: refused, with the way out."""
    with store.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    schema.require_current(store)
    schema.upgrade(store)
    with store.write() as connection:
        connection.execute(sa.update(schema_floor).values(revision="9998"))

    with pytest.raises(SchemaError, match="install the newer program"):
        schema.require_current(store)


def test_a_message_of_a_newer_program_is_understood() -> None:
    """What we do not know of it is left alone."""
    message = _parse(b'{"job_id": "j", "trace_context": {}, "version": 2, "colour": "blue"}', "stat")

    assert message is not None and message.job_id == "j"


def test_migrations_after_the_first_release_only_add() -> None:
    """Nothing is dropped, renamed or altered, no column without a default may not be null; a careless one is found."""
    files = [path for path in schema.migrations_dir().glob("versions/[0-9]*.py") if int(path.name[:4]) > RELEASED]

    assert len(faults(CARELESS)) == 2
    assert [(path.name, fault) for path in files for fault in faults(Path(path).read_text())] == []


def faults(source: str) -> list[str]:
    """Return what in the function `upgrade` an old program could not live with."""
    upgrade = next(
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"
    )
    calls = [node for node in ast.walk(upgrade) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    taken = [ast.unparse(call) for call in calls if call.func.attr in TAKES_AWAY]
    added = [call.args[-1] for call in calls if call.func.attr == "add_column"]
    return taken + [ast.unparse(column) for column in added if isinstance(column, ast.Call) and _is_needed(column)]


def _is_needed(column: ast.Call) -> bool:
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in column.keywords}
    return options.get("nullable") == "False" and "server_default" not in options
