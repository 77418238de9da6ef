\set super :USER
\ir mallory.sql
\connect - :super
\ir of_superuser.sql
