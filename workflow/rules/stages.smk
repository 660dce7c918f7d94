# A rule for each stage of dvc.yaml. Markers are its outputs, never data: see workflow/plan.py.
envvars:
    plans.VARIABLE,  # for the jobs, on other nodes too


if plan.restored:

    rule restore:
        output:
            [plan.marker(stage.address) for stage in plan.restored],
        log:
            plan.log(plans.RESTORING),
        message:
            "restored from the cache: " + ", ".join(s.address for s in plan.restored)
        localrule: True
        conda:
            "../envs/python.yaml"
        shell:
            plans.SHELL


for stage in plan.jobs:

    rule:
        name:
            stage.rule
        input:
            plan.waits_for(stage),
        output:
            plan.marker(stage.address),
        log:
            plan.log(stage.address),
        message:
            plan.why(stage).replace("{", "{{").replace("}", "}}")
        localrule: stage.local
        threads: stage.threads
        resources:
            **stage.resources,
        conda:
            "../envs/python.yaml"
        shell:
            plans.SHELL


for stage in plan.in_state("ok"):  # only a name to ask for

    rule:
        name:
            stage.rule
        localrule: True
        input:
            "dvc.yaml",
