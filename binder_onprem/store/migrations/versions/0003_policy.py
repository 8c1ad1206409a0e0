"""Launches that count against a rate; places for sessions.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "hits",
        sa.Column("launch_id", sa.String(16), primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("began", sa.Double, nullable=False),
    )
    op.create_index("hits_by_time", "hits", ["began"])
    op.create_table(
        "places",
        sa.Column("launch_id", sa.String(16), primary_key=True),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("quota", sa.Integer, nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("groups", sa.JSON, nullable=False),
        sa.Column("tag", sa.Double, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("granted", sa.Boolean, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("places")
    op.drop_table("hits")
