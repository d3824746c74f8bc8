"""Types of columns in migrations, by the names that `schema` has for them; never changed once released."""

import sqlalchemy as sa

Integers = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
