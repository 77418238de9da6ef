"""An emulated Amazon RDS: moto's API in front of real local PostgreSQL servers, with the rules that AWS has.

``python -m emulated_rds --help`` says how to start it, README.md what it emulates and how tests steer it.
"""
