"""Checks what is under deploy/ with the real helm, kubernetes-validate and promtool.

    manifests.py HELM CANET SCRATCH

kubernetes-validate knows the kinds of Kubernetes itself. Those of operators (the Prometheus operator's and KServe's)
are checked here: their fields against the list below, which is ours and not the operators' schemas, rules with promtool.
"""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "canet"
# The oldest Kubernetes that the chart allows, and the newest that is known.
VERSIONS = ["1.30", "1.37"]
# Fields that may stand in the spec of operators' kinds, and in their lists.
FIELDS = {
    "ServiceMonitor": {"jobLabel", "selector", "endpoints", "endpoints.port", "endpoints.path", "endpoints.interval",
                       "endpoints.authorization", "endpoints.scheme", "endpoints.tlsConfig"},
    "PrometheusRule": {"groups", "groups.name", "groups.rules", "groups.rules.record", "groups.rules.alert",
                       "groups.rules.expr", "groups.rules.for", "groups.rules.labels", "groups.rules.annotations"},
    "ServingRuntime": {"supportedModelFormats", "supportedModelFormats.name", "supportedModelFormats.version",
                       "supportedModelFormats.autoSelect", "protocolVersions", "annotations", "containers"},
    "InferenceService": {"predictor"},
}
PREDICTOR = {"minReplicas", "maxReplicas", "model"}
PREDICTOR_MODEL = {"modelFormat", "protocolVersion", "runtime", "storageUri"}


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def must(*command):
    status, said = run(*command)
    assert status == 0, f"{command}:\n{said}"
    return said


def main():
    helm, canet, scratch = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    flags = set(re.findall(r"\[env: (CANET_\w+)", must(canet, "serve", "--help")))
    assert len(flags) > 15, flags
    rendered = [rendered_chart(helm, values) for values in [None, *sorted((CHART / "ci").glob("*.yaml"))]]
    kinds = {document["kind"] for documents in rendered for document in documents}
    assert kinds == {"Deployment", "Service", "ServiceAccount", "HorizontalPodAutoscaler", "PodDisruptionBudget",
                     "NetworkPolicy", "PersistentVolumeClaim", "ServiceMonitor", "PrometheusRule"}, kinds
    for documents in rendered:
        check_documents(documents, scratch)
        check_chart(documents, flags, scratch)
    check_refusals(helm, rendered[0], scratch)
    check_names(helm, scratch)
    check_settings(helm, rendered, scratch)
    check_copies(helm, scratch)
    check_rules(helm, scratch)
    kserve = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "deploy" / "kserve").glob("*.yaml"))]
    check_kserve(kserve, rendered[0], flags, scratch)
    check_adapter(rendered)
    check_compose(flags)
    settings = re.findall(r"^(?:ENV| +) *(CANET_\w+)=", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    check_environment([name for name in settings if name != "CANET_CACHE"], flags)
    print("ok")


def rendered_chart(helm, values):
    given = ["--values", values] if values else []
    must(helm, "lint", "--strict", CHART, *given)
    text = subprocess.run([helm, "template", "demo", CHART, *given], capture_output=True, text=True, check=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def check_documents(documents, scratch):
    """Every document is valid, none is skipped without being looked at."""
    known = [document for document in documents if document["kind"] not in FIELDS]
    file = scratch / "documents.yaml"
    file.write_text(yaml.safe_dump_all(known))
    for version in VERSIONS:
        said = must(Path(sys.executable).parent / "kubernetes-validate", "--strict", "-k", version, file)
        assert said.count("passed for resource") == len(known), said
    for document in documents:
        if document["kind"] in FIELDS:
            unknown = set(names(document["spec"])) - FIELDS[document["kind"]]
            assert not unknown, f"{document['kind']}: {unknown}"


def names(spec, prefix=""):
    """The names of a spec's fields, and of those in its lists of mappings, but not below a mapping."""
    for name, value in spec.items():
        yield prefix + name
        if isinstance(value, list) and prefix + name != "containers":
            for entry in value:
                if isinstance(entry, dict):
                    yield from names(entry, f"{prefix}{name}.")


def check_chart(documents, flags, scratch):
    by_kind = {document["kind"]: document for document in documents}
    pod = by_kind["Deployment"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    check_environment([entry["name"] for entry in container["env"]], flags)
    labels = pod["metadata"]["labels"]
    for selector in (by_kind["Deployment"]["spec"]["selector"]["matchLabels"], by_kind["Service"]["spec"]["selector"],
                     by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]):
        assert selector.items() <= labels.items(), selector
    ports = {port["name"] for port in container["ports"]}
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert len(environment) == len(container["env"]), "a variable is set twice"
    served = {"http"} if environment["CANET_GRPC"] == "off" else {"http", "grpc"}
    assert {port["targetPort"] for port in by_kind["Service"]["spec"]["ports"]} == served
    # A node has more cores than the pod was given.
    threads = next(entry for entry in container["env"] if entry["name"] == "CANET_THREADS")
    assert container["resources"]["requests"]["cpu"]
    assert threads["valueFrom"] == {"resourceFieldRef": {"resource": "requests.cpu"}}
    secured = "CANET_TLS_CERT" in environment
    assert ports == served | {"probes"}
    # kubelet has no certificate to show, and must get its answer while the other ports are busy.
    probes = [container[name]["httpGet"]["port"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert probes == ["probes"] * 3
    assert environment["CANET_PROBE_LISTEN"].endswith(f':{port_number(container, "probes")}')
    policy = by_kind.get("NetworkPolicy", {"spec": {"ingress": [{"ports": [{"port": port} for port in ports]}]}})
    assert {port["port"] for port in policy["spec"]["ingress"][0]["ports"]} == ports
    drain = sum(float(environment[name]) for name in ("CANET_DRAIN_DELAY", "CANET_DRAIN_TIMEOUT"))
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > drain + sleep
    mounted = {mount["name"] for each in containers(pod) for mount in each["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}, mounted
    # The files and directories of ci/volumes-without-grpc.yaml.
    for name in {"CANET_CATALOGUE", "CANET_ANSWER_LOG", "AWS_CA_BUNDLE"} & set(environment):
        directory = environment[name].rsplit("/", 1)[0]
        mount = next(mount for mount in container["volumeMounts"] if mount["mountPath"] == directory)
        assert mount.get("readOnly", False) == (name != "CANET_ANSWER_LOG")
    assert not violations(pod["spec"]), violations(pod["spec"])
    assert pod["spec"]["automountServiceAccountToken"] is False
    for each in containers(pod):
        assert each["securityContext"]["readOnlyRootFilesystem"]
        models = [mount for mount in each["volumeMounts"] if mount["mountPath"] == "/models"]
        assert all(mount.get("readOnly") for mount in models) or each["name"] == "models"
    # Keys and tokens come from secrets alone, and as files.
    assert not {"CANET_API_KEY", "CANET_ADMIN_TOKEN"} & set(environment)
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for name in {"CANET_API_KEY_FILE", "CANET_ADMIN_TOKEN_FILE"} & set(environment):
        directory, file = environment[name].rsplit("/", 1)
        mount = next(mount for mount in container["volumeMounts"] if mount["mountPath"] == directory)
        secret = volumes[mount["name"]]["secret"]
        assert mount["readOnly"] and secret["items"] == [{"key": file, "path": file}] and secret["defaultMode"] == 0o440
    if "HorizontalPodAutoscaler" in by_kind:
        # Else a roll-out would set the number of pods back.
        assert "replicas" not in by_kind["Deployment"]["spec"]
    if "ServiceMonitor" in by_kind:
        spec, service = by_kind["ServiceMonitor"]["spec"], by_kind["Service"]
        assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert service["metadata"]["labels"][spec["jobLabel"]] == "canet"
        endpoint = spec["endpoints"][0]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert (endpoint.get("scheme") == "https") == secured
        # Values of one's own leave the chart's beside them.
        assert not secured or {"serverName", "ca", "cert"} <= set(endpoint["tlsConfig"])
        assert ("CANET_API_KEY_FILE" in environment) <= ("authorization" in endpoint)


def check_copies(helm, scratch):
    """The container that copies models finds them in its image, and puts them where the server looks."""
    image = {"source": "image", "image": {"repository": "registry.example/models:7"}}
    for path in ("/models", "/models/", "/srv/models"):
        copier, server, _ = pod_with(helm, {"model": {**image, "image": {**image["image"], "path": path}}}, scratch)
        program, _, source, target = copier["command"]
        assert (program, source) == ("cp", f"{path.rstrip('/')}/."), copier
        hidden = [mount["mountPath"] for mount in copier["volumeMounts"]]
        assert not any(f"{source}/".startswith(f"{directory}/") for directory in hidden), f"{hidden} hides {source}"
        assert volume_at(copier, target.rstrip("/")) == volume_at(server, "/models")
    for path in ("/copy", "/tmp/models", "models"):
        values = {"model": {**image, "image": {**image["image"], "path": path}}}
        assert "/model/image/path" in refusal(helm, values, scratch), path

    store = {"image": "rclone/rclone:1.70.3", "command": ["rclone", "copy", "store:models", "/models"], "everySeconds": 30,
             "resources": {"limits": {"memory": "3Gi"}}}
    values = {"startupSeconds": 901, "strategy": {"type": "Recreate"}, "model": {"source": "objectStore", "objectStore": store}}
    copier, server, strategy = pod_with(helm, values, scratch)
    assert strategy == {"type": "Recreate"}
    assert volume_at(copier, "/models") == volume_at(server, "/models")
    assert copier["resources"] == {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "3Gi"}}
    for probe in (copier["startupProbe"], server["startupProbe"]):
        assert (probe["periodSeconds"], probe["failureThreshold"]) == (2, 451), probe


def pod_with(helm, values, scratch):
    """The container that copies, the server's, and how pods are replaced."""
    deployment = kind_of(documents_with(helm, values, scratch), "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    return spec["initContainers"][0], spec["containers"][0], deployment["spec"]["strategy"]


def volume_at(container, path):
    return next(mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == path)


def documents_with(helm, values, scratch):
    file = scratch / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return rendered_chart(helm, file)


def kind_of(documents, kind):
    return next(document for document in documents if document["kind"] == kind)


def check_rules(helm, scratch):
    """The chart's rules are those of deploy/prometheus but for its values, and a release's read its own series alone."""
    prometheus = ROOT / "deploy" / "prometheus"
    text = (prometheus / "rules.yml").read_text()
    values = yaml.safe_load((CHART / "ci" / "claim-autoscaling.yaml").read_text())
    given = values["prometheusRule"]
    assert (given["objectiveSeconds"], given["savedShare"]) == (0.02, 0.45)
    for default, ours in {'le="0.1"': 'le="0.02"', "100 ms": "20 ms", "< 0.6\n": "< 0.45\n", "is 60 %": "is 45 %",
                          "docs/operations.md": given["runbook"]}.items():
        assert default in text, default
        text = text.replace(default, ours)
    expected = [rule for rule in yaml.safe_load(text)["groups"][0]["rules"] if rule.get("alert") not in given["disabled"]]
    rules = rules_with(helm, values, scratch)
    own = 'namespace="default",service="demo-canet"'
    for rule in rules:
        # No metric without the selector, and nothing but the selector is new.
        assert len(METRIC.findall(rule["expr"])) == rule["expr"].count(own) > 0, rule
        rule["expr"] = rule["expr"].replace(f"{{{own}}}", "").replace(f"{own},", "")
    assert rules == expected

    names = {rule["alert"] for rule in rules_with(helm, {"prometheusRule": {"enabled": True}}, scratch) if "alert" in rule}
    assert len(names) > 15 and "CanetSavesTooLittle" in names
    values = {"settings": {"ROUTE": "full"}, "prometheusRule": {"enabled": True, "disabled": ["CanetQueueWait"]}}
    left = {rule["alert"] for rule in rules_with(helm, values, scratch) if "alert" in rule}
    assert names - left == {"CanetSavesTooLittle", "CanetQueueWait"}
    wrong = {"prometheusRule": {"enabled": True, "disabled": ["CanetQueueWaits"]}}
    assert "no alert has the name CanetQueueWaits" in refusal(helm, wrong, scratch)

    # The rules of two releases, as one Prometheus sees them.
    for service, objective in (("demo-canet", 0.1), ("other-canet", 0.5)):
        values = {"prometheusRule": {"enabled": True, "objectiveSeconds": objective}}
        rules = yaml.safe_dump({"groups": [{"name": service, "rules": rules_with(helm, values, scratch)}]})
        (scratch / f"{service}.yml").write_text(rules.replace("demo-canet", service))
    (scratch / "releases.test.yml").write_text(RELEASES)
    must("promtool", "test", "rules", scratch / "releases.test.yml")


# What of an expression must have a release's selector.
METRIC = re.compile(r"(?:\w+:)?\bcanet_\w+(?::\w+)?|\bup\b|\bprocess_start_time_seconds\b")
# Every call takes 200 ms: too long for one of the releases, and not for the other. Each has a pod that is down.
RELEASES = """
rule_files: [demo-canet.yml, other-canet.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{job="canet",namespace="default",service="demo-canet",instance="a"}', values: '0x90'}
      - {series: 'up{job="canet",namespace="shop",service="demo-canet",instance="a"}', values: '0x90'}
      - {series: 'canet_request_duration_seconds_bucket{job="canet",namespace="default",service="demo-canet",le="0.1",endpoint="/recommend"}', values: '0x90'}
      - {series: 'canet_request_duration_seconds_bucket{job="canet",namespace="default",service="demo-canet",le="0.5",endpoint="/recommend"}', values: '0+60x90'}
      - {series: 'canet_request_duration_seconds_count{job="canet",namespace="default",service="demo-canet",endpoint="/recommend"}', values: '0+60x90'}
      - {series: 'canet_request_duration_seconds_bucket{job="canet",namespace="default",service="other-canet",le="0.1",endpoint="/recommend"}', values: '0x90'}
      - {series: 'canet_request_duration_seconds_bucket{job="canet",namespace="default",service="other-canet",le="0.5",endpoint="/recommend"}', values: '0+60x90'}
      - {series: 'canet_request_duration_seconds_count{job="canet",namespace="default",service="other-canet",endpoint="/recommend"}', values: '0+60x90'}
    promql_expr_test:
      - expr: service:canet_slow_calls:ratio_rate1h
        eval_time: 90m
        exp_samples:
          - {labels: 'service:canet_slow_calls:ratio_rate1h{job="canet",namespace="default",service="demo-canet"}', value: 1}
          - {labels: 'service:canet_slow_calls:ratio_rate1h{job="canet",namespace="default",service="other-canet"}', value: 0}
    alert_rule_test:
      - alertname: CanetDown
        eval_time: 90m
        exp_alerts:
          - exp_labels: {severity: critical, job: canet, namespace: default, service: demo-canet, instance: a}
            exp_annotations: {summary: a does not answer scrapes, runbook_url: docs/operations.md#canetdown}
      - alertname: CanetLatencyBudgetBurnsFast
        eval_time: 90m
        exp_alerts:
          - exp_labels: {severity: critical, job: canet, namespace: default, service: demo-canet}
            exp_annotations:
              summary: "100% of the calls take longer than 100 ms, for 5 minutes and for an hour"
              runbook_url: docs/operations.md#canetlatencybudgetburnsfast
"""


def rules_with(helm, values, scratch):
    """The rules that the chart renders, which promtool accepts."""
    spec = kind_of(documents_with(helm, values, scratch), "PrometheusRule")["spec"]
    file = scratch / "rules.yml"
    file.write_text(yaml.safe_dump(spec))
    must("promtool", "check", "rules", "--lint-fatal", file)
    (group,) = spec["groups"]
    return group["rules"]


# Kinds of volumes that the Pod Security Standard "restricted" allows.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
           "secret"}


def violations(spec):
    """What of a pod the Pod Security Standard "restricted" forbids, control by control."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    pod = spec.get("securityContext", {})
    found += ["sysctls"] if pod.get("sysctls") else []
    for volume in spec.get("volumes", []):
        found += [f"volume {volume['name']}"] if set(volume) - {"name"} - VOLUMES else []
    for container in spec["containers"] + spec.get("initContainers", []):
        own = container.get("securityContext", {})
        of = {**pod, **own}
        capabilities = own.get("capabilities", {})
        wrong = {
            "privileged": own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
            "capabilities.drop": "ALL" not in capabilities.get("drop", []),
            "capabilities.add": set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
            "runAsNonRoot": of.get("runAsNonRoot") is not True,
            "runAsUser": of.get("runAsUser") == 0,
            "seccompProfile": of.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
            "procMount": own.get("procMount", "Default") != "Default",
            "hostPort": any(port.get("hostPort") for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, is_wrong in wrong.items() if is_wrong]
    return found


def port_number(container, name):
    return next(port["containerPort"] for port in container["ports"] if port["name"] == name)


def containers(pod):
    return pod["spec"]["containers"] + pod["spec"].get("initContainers", [])


def check_environment(variables, flags):
    ours = {name for name in variables if name.startswith("CANET_")}
    assert ours and ours <= flags, f"no flag of `canet serve` has {sorted(ours - flags)}"


def check_refusals(helm, documents, scratch):
    """What is wrong is found."""
    for wrong in ("model.source=nowhere", "autoscaling.metric=gut", "replica=3", "settings.queue=1"):
        assert run(helm, "lint", "--strict", CHART, "--set", wrong)[0] != 0, wrong
    assert run(helm, "template", "demo", CHART, "--set", "model.source=image")[0] != 0
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    deployment = yaml.safe_load(yaml.safe_dump(deployment))
    deployment["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    file = scratch / "wrong.yaml"
    file.write_text(yaml.safe_dump(deployment))
    assert run(Path(sys.executable).parent / "kubernetes-validate", "--strict", file)[0] != 0
    for weaken in (
        lambda spec, container: spec.update(hostNetwork=True),
        lambda spec, container: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        lambda spec, container: spec["securityContext"].pop("runAsNonRoot"),
        lambda spec, container: spec["securityContext"].pop("seccompProfile"),
        lambda spec, container: container["securityContext"].pop("capabilities"),
        lambda spec, container: container["securityContext"].update(allowPrivilegeEscalation=True),
        lambda spec, container: container["securityContext"].update(privileged=True),
        lambda spec, container: container["securityContext"].update(runAsUser=0),
        lambda spec, container: container["ports"][0].update(hostPort=80),
    ):
        spec = yaml.safe_load(yaml.safe_dump(deployment))["spec"]["template"]["spec"]
        weaken(spec, spec["containers"][0])
        assert len(violations(spec)) == 1, violations(spec)


# What of the values is Kubernetes' or an operator's own and may have any name.
PASSED_ON = {"global", "settings", "strategy", "resources", "podAnnotations", "nodeSelector", "affinity",
             "model.objectStore.resources", "serviceMonitor.labels", "serviceMonitor.endpoint", "prometheusRule.labels",
             "serviceAccount.annotations"}


def check_names(helm, scratch):
    """A name that the chart does not have is refused in every object of the values, as are values that do nothing."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    ours = [path for path in objects(values) if path not in PASSED_ON]
    assert {"image", "model.claim", "networkPolicy", "autoscaling", "tls"} <= set(ours), ours
    wrong = {}
    for path in ours:
        place = wrong
        for name in path.split("."):
            place = place.setdefault(name, {})
        place["typo"] = 1
    said = refusal(helm, wrong, scratch)
    refused = set(re.findall(r"'/([\w/]+)': additional properties 'typo'", said))
    assert refused == {path.replace(".", "/") for path in ours}, refused
    for values, words in (
        ("tls: {clientCertificates: true}", "tls.clientCertificates needs tls.secret"),
        ("image: {digest: 'sha256:abc'}", "/image/digest"),
        ("networkPolicy: {enabled: 'false'}", "/networkPolicy/enabled"),
        ("prometheusRule: {savedShare: 60}", "/prometheusRule/savedShare"),
    ):
        assert words in refusal(helm, yaml.safe_load(values), scratch), values


def objects(values, prefix=""):
    """The paths of the objects in the values, but not of those in PASSED_ON's."""
    for name, value in values.items():
        path = prefix + name
        if isinstance(value, dict):
            yield path
            if path not in PASSED_ON:
                yield from objects(value, f"{path}.")


# Variables of the chart that `settings` may change. The number of threads follows the CPU request if nothing names it.
CHANGEABLE = {"GRPC", "LOG_FORMAT", "MODEL_CACHE", "THREADS"}


def check_settings(helm, rendered, scratch):
    """No variable comes twice, no boolean stands for a word, and a start may take as long as the values say."""
    deployments = [document for documents in rendered for document in documents if document["kind"] == "Deployment"]
    names = {entry["name"] for deployment in deployments for entry in container_of(deployment)["env"]}
    given = [yaml.safe_load(values.read_text()).get("settings", {}) for values in (CHART / "ci").glob("*.yaml")]
    ours = {name.removeprefix("CANET_") for name in names if name.startswith("CANET_")}
    owned = ours.difference(CHANGEABLE, *given)
    assert {"LISTEN", "WATCH", "MAX_REGRESSION", "CANDIDATE_SHARE", "DEVICE", "TLS_CLIENT_CA"} <= owned, owned
    refused = set(re.findall(r"'/settings/(\w+)'", refusal(helm, {"settings": dict.fromkeys(owned, "1")}, scratch)))
    assert refused == owned, refused ^ owned
    for values, words in (
        ("settings: {GRPC: off}", "/settings/GRPC"),
        ("settings: {GRPC: '0.0.0.0:9000'}", "/settings/GRPC"),
        ("model: {maxRegression: off}", "/model/maxRegression"),
        ("startupSeconds: 0", "/startupSeconds"),
        ("extraVolumes: {name: catalogue}", "/extraVolumes"),
        ("extraVolumes: [{emptyDir: {}}]", "/extraVolumes/0"),
        ("extraVolumeMounts: [{name: catalogue}]", "/extraVolumeMounts/0"),
        ("env: [{name: CANET_GRPC, value: 'off'}]", "CANET_GRPC is set twice"),
        ("{settings: {DEGRADE: true}, env: [{name: CANET_DEGRADE, value: 'true'}]}", "CANET_DEGRADE is set twice"),
    ):
        assert words in refusal(helm, yaml.safe_load(values), scratch), values
    for given, tries in ({}, 150), ({"startupSeconds": 901}, 451):
        deployment = kind_of(documents_with(helm, given, scratch), "Deployment")
        assert deployment["spec"]["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        probe = container_of(deployment)["startupProbe"]
        assert (probe["periodSeconds"], probe["failureThreshold"]) == (2, tries), probe


def refusal(helm, values, scratch):
    """What helm says of values that it must refuse."""
    file = scratch / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    status, said = run(helm, "template", "demo", CHART, "--values", file)
    assert status != 0, values
    return said


def container_of(deployment):
    return deployment["spec"]["template"]["spec"]["containers"][0]


def check_kserve(documents, chart, flags, scratch):
    by_kind = {document["kind"]: document for document in documents}
    runtime, service = by_kind["ServingRuntime"], by_kind["InferenceService"]
    assert (runtime["apiVersion"], service["apiVersion"]) == ("serving.kserve.io/v1alpha1", "serving.kserve.io/v1beta1")
    check_documents(documents + [pod_of(runtime)], scratch)
    container = runtime["spec"]["containers"][0]
    check_environment([entry["name"] for entry in container["env"]], flags)
    assert not violations(runtime["spec"]), violations(runtime["spec"])
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["CANET_THREADS"] == container["resources"]["requests"]["cpu"]
    # Knative takes no hooks. So the server serves on until the probe has failed, and ends within the grace period.
    probe, delay = container["readinessProbe"], int(environment["CANET_DRAIN_DELAY"])
    assert "lifecycle" not in container
    assert probe["periodSeconds"] * probe.get("failureThreshold", 3) < delay < 30 - 15 - 2
    predictor = service["spec"]["predictor"]
    assert set(predictor) <= PREDICTOR and set(predictor["model"]) <= PREDICTOR_MODEL
    model = predictor["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    formats = [(known["name"], known["version"]) for known in runtime["spec"]["supportedModelFormats"]]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats
    ours = next(document for document in chart if document["kind"] == "Deployment")
    image = ours["spec"]["template"]["spec"]["containers"][0]["image"]
    assert runtime["spec"]["containers"][0]["image"] == image


def pod_of(runtime):
    """Its containers as a pod, which Kubernetes' own schema knows."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runtime"},
            "spec": {"containers": runtime["spec"]["containers"]}}


def check_adapter(rendered):
    adapter = yaml.safe_load((ROOT / "deploy" / "helm" / "prometheus-adapter.values.yaml").read_text())
    offered = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    scalers = [document for documents in rendered for document in documents
               if document["kind"] == "HorizontalPodAutoscaler"]
    metrics = [metric for scaler in scalers for metric in scaler["spec"]["metrics"]]
    used = {metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods"}
    assert used == offered, (used, offered)


def check_compose(flags):
    deploy = ROOT / "deploy"
    compose = yaml.safe_load((deploy / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"server", "prometheus", "grafana"}
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), f"{name}: {service['image']} is not pinned"
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            there = (deploy / source).exists() if source.startswith(".") else source in compose["volumes"]
            assert there, f"{name}: {volume}"
        assert set(service.get("depends_on", [])) <= set(services)
        # Nothing is offered to the network.
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    server = services["server"]
    check_environment(server["environment"], flags)
    assert server["read_only"] and server["cap_drop"] == ["ALL"]
    assert (deploy / server["build"]["context"] / "Dockerfile").is_file()
    prometheus = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == ["server:8080"]
    source = yaml.safe_load((deploy / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((deploy / "grafana" / "provisioning" / "dashboards" / "canet.yml").read_text())
    path = provider["providers"][0]["options"]["path"]
    assert any(volume.split(":")[1] == path for volume in services["grafana"]["volumes"])


if __name__ == "__main__":
    main()
