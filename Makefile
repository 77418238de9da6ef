# Every target is one step of tests/tools/run.py, which says what it does: python3 tests/tools/run.py --help
RUN = python3 tests/tools/run.py
SCENARIO ?=

.PHONY: test test-matrix lint sanity unit page suites docs molecule incidents hosts build clean demo demo-clean demo-rds bench

test: ## everything, from a clean clone; ends with one line "N passed, N failed"
	@$(RUN) test

test-matrix: ## the same with every case on every version and at every site, which takes about half as long again
	@$(RUN) test-matrix

lint sanity unit page suites hosts build clean docs:
	@$(RUN) $@

molecule: ## all scenarios, or SCENARIO=name, or SCENARIO="name --whole" with its whole matrix; the hosts are kept
	@$(RUN) molecule $(SCENARIO)

incidents: ## every incident, three times each, on PostgreSQL 15, 17 and 18; the list is in .work/incidents.txt
	@$(RUN) molecule incidents --whole; status=$$?; cat .work/incidents.txt; exit $$status

demo: ## a small production, a dropped table, its recovery
	@examples/embedded/demo

demo-clean:
	@examples/embedded/demo --clean

demo-rds: ## the same on an emulated RDS; examples/rds/demo --clean removes it
	@examples/rds/demo

bench: ## the usual runbook, an expert's, and ours, side by side
	@benchmarks/run
