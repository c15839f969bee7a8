{{- define "canet.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "canet.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "canet.labels" -}}
{{ include "canet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "canet.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ if .Values.gpu.enabled }}-cuda{{ end }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "canet.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "canet.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "canet.claim" -}}
{{ .Values.model.claim.existing | default (printf "%s-models" (include "canet.fullname" .)) }}
{{- end }}

{{/* What Prometheus must show and check to scrape a server that asks for keys or TLS. */}}
{{- define "canet.endpoint" -}}
{{- with .Values.apiKeySecret }}
authorization: {credentials: {name: {{ . }}, key: prometheus}}
{{- end }}
{{- with .Values.tls.secret }}
scheme: https
tlsConfig:
  serverName: {{ include "canet.fullname" $ }}.{{ $.Release.Namespace }}.svc
  ca: {secret: {name: {{ . }}, key: ca.crt}}
{{- end }}
{{- end }}

{{/* Whether the server speaks gRPC; empty: no. */}}
{{- define "canet.grpc" -}}
{{- if ne (.Values.settings.GRPC | default "") "off" }}true{{ end }}
{{- end }}

{{/* A value as a string. Numbers of a values file are floats, which quote writes with an exponent from 1,000,000 on. */}}
{{- define "canet.text" -}}
{{- ternary (toJson .) . (kindIs "float64" .) | quote }}
{{- end }}

{{/* How often a startup probe with a period of 2 s may fail, rounded up. */}}
{{- define "canet.startupTries" -}}
{{ div (add .Values.startupSeconds 1) 2 }}
{{- end }}

{{/* What no container of a pod needs. */}}
{{- define "canet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The container that puts models into the pod. */}}
{{- define "canet.modelContainer" -}}
{{- $store := .Values.model.objectStore }}
{{- $target := "/models" }}
- name: models
  {{- if eq .Values.model.source "image" }}
  {{- /* A mount at /models would hide the models of the image. */}}
  {{- $target = "/copy" }}
  image: {{ required "model.image.repository: the image that holds the models" .Values.model.image.repository }}
  command: [cp, -Rf, {{ printf "%s/." (trimSuffix "/" .Values.model.image.path) | quote }}, {{ $target }}/]
  {{- else }}
  image: {{ required "model.objectStore.image: an image with the store's client" $store.image }}
  {{- $command := required "model.objectStore.command: what copies the models to /models" $store.command }}
  {{- if $store.everySeconds }}
  # A sidecar: it starts before the server and goes on. The server refuses a version that is not whole yet, and tries
  # again when its files change. The shell is process 1, so SIGTERM ends it only by a trap, which runs at once during `wait`
  # and else when the command has ended.
  restartPolicy: Always
  command: [sh, -c, 'trap exit TERM; until "$@" && touch /tmp/copied; do sleep 5 & wait $!; done; while sleep {{ $store.everySeconds }} & wait $!; do "$@"; done', sh]
  args: {{ toJson $command }}
  startupProbe:
    exec: {command: [test, -e, /tmp/copied]}
    periodSeconds: 2
    failureThreshold: {{ include "canet.startupTries" . }}
  {{- else }}
  command: {{ toJson $command }}
  {{- end }}
  {{- with $store.secret }}
  envFrom:
    - secretRef: {name: {{ . }}}
  {{- end }}
  {{- end }}
  securityContext:
    {{- include "canet.containerSecurity" . | nindent 4 }}
  {{- with $store.resources }}
  resources: {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: models, mountPath: {{ $target }}}
    - {name: scratch, mountPath: /tmp}
{{- end }}
