"""What the administrator rules: bans, pinned images, switches, the audit; builds that are fresh or moved to the front.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    """Make the tables."""
    op.add_column("builds", sa.Column("fresh", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("builds", sa.Column("front", sa.Double))
    op.create_table(
        "bans",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("until", sa.Double),
        sa.Column("by", sa.Text, nullable=False),
    )
    op.create_table("pins", sa.Column("image", sa.Text, primary_key=True), sa.Column("pinned", sa.Double, nullable=False))
    op.create_table("switches", sa.Column("name", sa.String(32), primary_key=True), sa.Column("value", sa.JSON, nullable=False))
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(64), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_by_time", "audit", ["at"])


def downgrade() -> None:
    """Drop them."""
    for table in ("audit", "switches", "pins", "bans"):
        op.drop_table(table)
    with op.batch_alter_table("builds") as builds:
        builds.drop_column("front")
        builds.drop_column("fresh")
