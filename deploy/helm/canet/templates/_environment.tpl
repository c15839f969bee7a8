{{/* The server's variables. Of two with one name the second would win without a word, so no name may come twice. */}}
{{- define "canet.environment" -}}
{{- $variables := include "canet.variables" . }}
{{- $names := dict }}
{{- range fromYamlArray $variables }}
{{- if hasKey $names .name }}{{ fail (printf "%s is set twice: take it out of env" .name) }}{{ end }}
{{- $_ := set $names .name true }}
{{- end }}
{{- $variables }}
{{- end }}

{{- define "canet.variables" -}}
{{- $model := .Values.model }}
{{- $tls := .Values.tls }}
{{- $isRemote := eq $model.source "s3" }}
{{- $watches := and $model.watch (not $model.version) }}
{{- /* Variables of the chart that `settings` may change. values.schema.json refuses the others there. */}}
{{- $defaults := dict "GRPC" "0.0.0.0:8081" "LOG_FORMAT" "json" }}
{{- if $isRemote }}{{ $_ := set $defaults "MODEL_CACHE" "/tmp/models" }}{{ end }}
{{- $settings := merge (deepCopy .Values.settings) $defaults }}
{{- if $isRemote }}
- {name: CANET_MODEL, value: {{ required "model.s3.address: s3://BUCKET/PREFIX" $model.s3.address | quote }}}
{{- else }}
- {name: CANET_MODEL, value: {{ printf "/models/%s" $model.name | quote }}}
{{- end }}
- {name: CANET_LISTEN, value: "0.0.0.0:8080"}
- {name: CANET_PROBE_LISTEN, value: "0.0.0.0:8082"}
- {name: CANET_WATCH, value: {{ $watches | quote }}}
- {name: CANET_DRAIN_DELAY, value: {{ .Values.drain.delaySeconds | quote }}}
- {name: CANET_DRAIN_TIMEOUT, value: {{ .Values.drain.timeoutSeconds | quote }}}
{{- with $model.version }}
- {name: CANET_VERSION, value: {{ include "canet.text" . }}}
{{- end }}
{{- if and $watches (ne (toString $model.maxRegression) "") }}
- {name: CANET_MAX_REGRESSION, value: {{ $model.maxRegression | quote }}}
{{- end }}
{{- with $model.candidate.version }}
- {name: CANET_CANDIDATE, value: {{ include "canet.text" . }}}
- {name: CANET_CANDIDATE_SHARE, value: {{ $model.candidate.share | quote }}}
{{- end }}
{{- if .Values.gpu.enabled }}
- {name: CANET_DEVICE, value: "cuda:0"}
{{- end }}
{{- $named := hasKey $settings "THREADS" }}
{{- range .Values.env }}{{ if eq .name "CANET_THREADS" }}{{ $named = true }}{{ end }}{{ end }}
{{- if and (dig "requests" "cpu" "" (.Values.resources | default dict)) (not $named) }}
# Else it would compute on every core of the node but one. Rounded up.
- name: CANET_THREADS
  valueFrom: {resourceFieldRef: {resource: requests.cpu}}
{{- end }}
{{- range $name, $value := $settings }}
{{- /* The server refuses settings of the watch without it. A version to stay at turns it off. */}}
{{- if or $watches (ne $name "WATCH_INTERVAL") }}
- {name: CANET_{{ $name }}, value: {{ include "canet.text" $value }}}
{{- end }}
{{- end }}
{{- if and $tls.clientCertificates (not $tls.secret) }}
{{- fail "tls.clientCertificates needs tls.secret: without it the server would speak no TLS and ask for no certificate" }}
{{- end }}
{{- if $tls.secret }}
- {name: CANET_TLS_CERT, value: /tls/tls.crt}
- {name: CANET_TLS_KEY, value: /tls/tls.key}
{{- if $tls.clientCertificates }}
- {name: CANET_TLS_CLIENT_CA, value: /tls/ca.crt}
{{- end }}
{{- end }}
# Files, because the variables of a process show in more places.
{{- if .Values.apiKeySecret }}
- {name: CANET_API_KEY_FILE, value: /secrets/api/keys}
{{- end }}
{{- if .Values.adminTokenSecret }}
- {name: CANET_ADMIN_TOKEN_FILE, value: /secrets/admin/token}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}
