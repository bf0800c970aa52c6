{{- define "taximeter.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "taximeter.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "taximeter.labels" -}}
{{ include "taximeter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "taximeter.adminSecret" -}}
{{- .Values.adminToken.existingSecret | default (printf "%s-admin" (include "taximeter.name" .)) -}}
{{- end -}}

{{- /* Host names under which clients in the cluster reach the ports. */ -}}
{{- define "taximeter.hosts" -}}
{{- $name := include "taximeter.name" . -}}
{{- $long := printf "%s.%s" $name .Release.Namespace -}}
{{- concat (list $name $long (printf "%s.svc" $long) (printf "%s.svc.cluster.local" $long)) .Values.allowedHosts | toJson -}}
{{- end -}}
