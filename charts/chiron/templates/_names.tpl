{{- define "chiron.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "chiron.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Labels of every object: (list . "component"). */}}
{{- define "chiron.labels" -}}
{{- $context := index . 0 -}}
helm.sh/chart: {{ $context.Chart.Name }}-{{ $context.Chart.Version }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
{{ include "chiron.selector" . }}
{{- end }}

{{/* Labels that selectors use, and that never change. */}}
{{- define "chiron.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: chiron
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}
