"""What of a build has been told as an event.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    """Add the column; of builds from before, nothing is told any more."""
    op.add_column("builds", sa.Column("told", sa.String(32)))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("builds", "told")
