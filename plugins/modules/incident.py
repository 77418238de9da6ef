#!/usr/bin/python
# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: incident
short_description: Keep the record of an incident on the controller
version_added: "0.1.0"
description:
  - Keeps the record of one recovery in a folder on the controller, so that a run that was killed at any moment is taken
    up again where it was, and so that a manager and an auditor can read afterwards what was done.
  - The folder holds C(record.json), C(plan.json), C(events.jsonl) (phase, step, host, start, end, outcome),
    C(evidence/) and, when a run has ended, C(report.json) and C(report.html).
  - Every file is replaced atomically and synced to disk, mode V(0600); folders have mode V(0700).
  - Only one run at a time works on an incident. The lock names the C(ansible-playbook) process that holds it and is
    taken over when that process no longer lives.
  - Nothing is done on the host of the task and no connection to it is made; its name goes into the events.
options:
  id:
    description:
      - Name of the incident, 1 to 40 letters, digits, underscores and dashes, the first no dash. The same id resumes.
    type: str
    required: true
  dir:
    description:
      - Folder on the controller that holds the records of all incidents. A relative path starts at the folder
        that C(ansible-playbook) was started in.
    type: path
    default: incidents
  state:
    description:
      - V(read) returns the record of an incident and writes nothing; one that is not there is an error.
      - V(open) begins the incident or takes it up again. A phase that an earlier run left unfinished gets the outcome
        V(interrupted). An incident that has ended well is not opened again; RV(record.closed) says so. A plan that
        nobody confirmed is discarded.
      - V(planned) keeps all data collected so far, with O(data), as C(plan.json). A plan that was confirmed (data
        C(confirmation)) stays as it is and is returned, unless O(data) has another C(target); then the confirmation is
        discarded with it. The plan is shown as text.
      - V(waiting) ends the run after its plan, and leaves the incident to the run that confirms it.
      - V(phase) ends the running phase with outcome V(ok) and begins O(phase). A phase that has nothing left to do, see
        RV(record.done_phases), is not begun again, and nothing is written.
      - V(done) and V(failed) end the run and write the report. A failed incident can be opened again.
      - V(abandoned) notes that what was made beside production is removed. An incident that has ended well stays so,
        any other one ends as with V(failed).
    type: str
    choices: [read, open, planned, waiting, phase, done, failed, abandoned]
    required: true
  scenario:
    description:
      - Name of the scenario, such as V(dr-table-drop). Required with O(state=open). The other states need it only in
        check mode, where nothing on disk tells it.
    type: str
  parameters:
    description:
      - What makes this incident this incident, for O(state=open). Taking it up with other parameters is refused once
        they were acted upon; C(tables), C(schemas), C(load) and C(scope) can be corrected until the phase C(recover),
        C(contain) may be another one in each run.
        The other states need it only in check mode, where nothing on disk tells it.
    type: dict
    default: {}
  milestones:
    description:
      - Phases which, once they have ended well, make all phases before them past, for O(state=open). A run that goes on
        leaves out those and goes through all others again; see RV(record.done_phases).
    type: list
    elements: str
    default: []
  phase:
    description:
      - Name of the phase that begins. Required with O(state=phase).
    type: str
  keep:
    description:
      - Under which variables O(phase) will have found what belongs into the record, by subject, for O(state=phase).
        Whichever task of this module ends the phase well looks there and adds what it finds to its own O(data); what
        is not there then, or empty, is not kept. RV(record.keep) returns it as long as the phase runs.
      - Both this and what check mode collects need the result of each task to be registered as C(incident_result).
    type: dict
    default: {}
  data:
    description:
      - Facts to add to the record, by subject. Dictionaries are merged at every depth, all else is replaced.
      - Values of keys that name a password, passphrase, secret, token or private key are masked before anything
        is written.
    type: dict
    default: {}
  msg:
    description:
      - Why the run failed. Required with O(state=failed) and O(state=abandoned).
    type: str
  step:
    description:
      - The step that failed, for the event of the running phase.
    type: str
  abandon:
    description:
      - The command that gives the incident up, for O(state=phase). Later runs of other incidents show it when what
        O(phase) makes beside production is still there after seven days.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: In check mode nothing is written; the record is returned as it would be, built on what is on disk.
  diff_mode:
    support: none
    description: The record is no configuration; nothing to compare.
author:
  - the dbre.recovery authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Open the incident, or take it up again
  dbre.recovery.incident:
    id: orders-dropped
    state: open
    scenario: dr-table-drop
    parameters:
      database: shop
      tables: [public.orders]
  register: incident_result

- name: Begin the phase
  dbre.recovery.incident:
    id: orders-dropped
    state: phase
    phase: restore
    keep:
      proof: recovery_source_proof
    data:
      target: "{{ located.target }}"
  register: incident_result

- name: Close the incident and write the report
  dbre.recovery.incident:
    id: orders-dropped
    state: done
    data:
      recovery: "{{ recovered }}"
  register: incident_result
"""

RETURN = r"""
record:
  description: The incident as it is after this task.
  returned: success
  type: dict
  contains:
    id:
      description: Name of the incident.
      type: str
      sample: orders-dropped
    path:
      description: Folder of the record on the controller.
      type: str
      sample: /home/dbre/incidents/orders-dropped
    digest:
      description: >-
        A name for what the plan decides, the same each time that the same is planned. It stays when only the name of
        the incident, or what is so at the moment (ages, free space), is another.
      type: str
      sample: plan-3f9a2c7180de
    scenario:
      description: Name of the scenario.
      type: str
      sample: dr-table-drop
    parameters:
      description: The parameters it was opened with.
      type: dict
      sample: {"database": "shop", "tables": ["public.orders"]}
    started:
      description: When the incident was first opened.
      type: str
      sample: "2026-11-23T21:42:07.118+00:00"
    resumed:
      description: Whether an earlier run had opened it.
      type: bool
      sample: false
    closed:
      description: Whether it has ended well, so that there is nothing left to do.
      type: bool
      sample: false
    outcome:
      description: State of the incident, one of V(running), V(done), V(failed).
      type: str
      sample: running
    verdict:
      description: V(proved), V(in_part) or V(not_recovered) where the incident has ended; else null.
      type: str
      sample: proved
    headline:
      description: The verdict in words, with all that is missing; null as long as there is none.
      type: str
      sample: "Recovered in part: missing 5,000 rows of public.lines"
    plan:
      description: What C(plan.json) holds, null before there is a plan.
      type: dict
      sample: {"planned_at": "2026-11-23T21:42:11.530+00:00", "target": {"type": "lsn", "value": "0/3008940"}}
    finished_phases:
      description: Phases whose last try ended well.
      type: list
      elements: str
      sample: [plan, locate]
    done_phases:
      description:
        - Phases that have nothing left to do, in this run and in those that go on with it. All of them when it is
          closed, else those up to the last of O(milestones) that has ended well.
      type: list
      elements: str
      sample: []
    keep:
      description: O(keep) of the running phase.
      type: dict
      sample: {"proof": "recovery_source_proof"}
    phase:
      description: The running phase, or null.
      type: str
      sample: restore
    seconds:
      description: Seconds spent in each phase so far, in all runs together.
      type: dict
      sample: {"plan": 1.204, "locate": 2.318}
    data:
      description: All data collected so far.
      type: dict
      sample: {"target": {"type": "lsn", "value": "0/3008940"}}
    needs_side_instance:
      description: What is left to do and reads the side instance, which therefore stays.
      type: list
      elements: dict
      sample: []
    host:
      description: Host that the incident is about, null before a phase was begun.
      type: str
      sample: db1
    side:
      description: >-
        What was made beside production; C(expires) says from when on other incidents name it, C(removed) when it was
        removed, null as long as it is there, and C(abandon) the command that removes it. Null where nothing was made.
      type: dict
      sample: {"expires": "2026-11-30T21:42:11.530+00:00", "removed": null, "abandon": "ansible-playbook ..."}
    overdue:
      description: What other incidents in this folder keep although it has expired.
      returned: O(state=open) and O(state=planned)
      type: list
      elements: dict
      sample: []
    past_seconds:
      description:
        - Usual seconds of each phase, medians over the newest reports of the same scenario, and the same way back, that
          ended well in one go; null when there are none.
      returned: O(state=open) and O(state=planned)
      type: dict
      sample: {"locate": 2.1, "restore": 9.4}
    past_strategies:
      description: >-
        Of each way back (C(dr_strategy)) what such reports measured; seconds of the C(restore), C(seconds) after it,
        and C(bytes_per_second) of what was loaded.
      returned: O(state=open) and O(state=planned)
      type: dict
      sample: {"database": {"restore": 9.4, "seconds": 20.5, "bytes_per_second": 52428800.0}}
    recovered_before:
      description:
        - The newest other incident in the folder that has recovered from the same damage, with its verdict; null when
          there is none.
      returned: O(state=open) and O(state=planned)
      type: str
      sample: "a1: Recovered and proved"
"""
