{{/* The rules of files/rules.yml with the values of the chart, without the alerts that are off, for this release's series alone. */}}
{{- define "canet.rules" -}}
{{- $values := .Values.prometheusRule }}
{{- $objective := $values.objectiveSeconds }}
{{- /* Prometheus 3 stores the bound 1 as 1.0. */}}
{{- $bound := ternary `=~"1|1\\.0"` (printf "=\"%v\"" $objective) (eq (toString $objective) "1") }}
{{- $text := .Files.Get "files/rules.yml" | replace "le=\"0.1\"" (printf "le%s" $bound) }}
{{- $text = $text | replace "100 ms" (printf "%v ms" (mulf $objective 1000)) }}
{{- $saved := $values.savedShare | default 0.6 | float64 }}
{{- $text = $text | replace "ratio_rate30m < 0.6" (printf "ratio_rate30m < %v" $saved) }}
{{- $text = $text | replace "the target is 60 %" (printf "the target is %v %%" (round (mulf $saved 100) 1)) }}
{{- $text = $text | replace "docs/operations.md" $values.runbook }}
{{- $off := $values.disabled | default list }}
{{- /* With one route for all there is nothing to save. */}}
{{- if .Values.settings.ROUTE }}{{ $off = append $off "CanetSavesTooLittle" }}{{ end }}
{{- $known := list }}
{{- $rules := fromYaml $text }}
{{- range $group := $rules.groups }}
{{- $kept := list }}
{{- range $rule := $group.rules }}
{{- $known = append $known ($rule.alert | default "") }}
{{- if not (and $rule.alert (has $rule.alert $off)) }}
{{- $_ := set $rule "expr" (include "canet.ownSeries" (list $ $rule.expr)) }}
{{- $kept = append $kept $rule }}
{{- end }}
{{- end }}
{{- $_ := set $group "rules" $kept }}
{{- end }}
{{- range $off }}
{{- if not (has . $known) }}{{ fail (printf "prometheusRule.disabled: no alert has the name %s" .) }}{{ end }}
{{- end }}
{{- toYaml $rules }}
{{- end }}

{{/* An expression with a selector of this release at each metric and record: other releases may share the Prometheus. */}}
{{- define "canet.ownSeries" -}}
{{- $context := first . }}
{{- $own := printf `{namespace="%s",service="%s"}` $context.Release.Namespace (include "canet.fullname" $context) }}
{{- $metric := `\b((?:\w+:)?canet_\w+(?::\w+)?|up|process_start_time_seconds)\b` }}
{{- /* A metric that has a selector now has two of them, which become one. */}}
{{- regexReplaceAll $metric (last .) (printf "${1}%s" $own) | replace "}{" "," }}
{{- end }}
