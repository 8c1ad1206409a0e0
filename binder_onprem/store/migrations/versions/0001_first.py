"""Builds, uses of images, launches.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: None = None
depends_on: None = None

OPEN = sa.text("state IN ('queued', 'running', 'pushing')")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "builds",
        # SQLite counts by itself only in a column of exactly this type.
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(16), nullable=False, unique=True),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("repo", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("started", sa.Double),
        sa.Column("ended", sa.Double),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("asker", sa.Text, nullable=False),
    )
    op.create_index("one_open_build", "builds", ["repository", "tag"], unique=True, sqlite_where=OPEN, postgresql_where=OPEN)
    op.create_index("builds_of_image", "builds", ["repository", "tag", "number"])
    op.create_index("builds_by_state", "builds", ["state", "number"])
    op.create_table(
        "uses",
        sa.Column("image", sa.Text, primary_key=True),
        sa.Column("used", sa.Double, nullable=False),
    )
    op.create_table(
        "launches",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("launch_id", sa.String(16), nullable=False, unique=True),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("began", sa.Double, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("commit", sa.Text),
        sa.Column("image", sa.Text),
        sa.Column("resolve", sa.Double),
        sa.Column("build", sa.Double),
        sa.Column("start", sa.Double),
        sa.Column("pinned", sa.JSON),
    )
    op.create_index("launches_by_time", "launches", ["began"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("launches")
    op.drop_table("uses")
    op.drop_table("builds")
