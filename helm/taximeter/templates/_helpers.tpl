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

{{- define "taximeter.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "taximeter.adminSecret" -}}
{{- .Values.adminToken.existingSecret | default (printf "%s-admin" (include "taximeter.name" .)) -}}
{{- end -}}

{{- define "taximeter.keySecret" -}}
{{- .Values.proxyKey.existingSecret | default (printf "%s-key" (include "taximeter.name" .)) -}}
{{- end -}}

{{- /* A Secret made at the first install: what the cluster has of it is kept, to the byte.
       Without a cluster (helm template) nothing can be looked up, and none is made: each render would make another.
       Every cluster has an API aggregator, which Helm does not suppose where it has none to ask.
       Takes: root, secret (its name), field (of the secret itself), prefix. */ -}}
{{- define "taximeter.madeOnce" -}}
{{- if .root.Capabilities.APIVersions.Has "apiregistration.k8s.io/v1" -}}
{{- $kept := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- $value := printf "%s%s" .prefix (randAlphaNum 43) -}}
{{- if $kept -}}
{{- $value = index $kept.data .field | b64dec -}}
{{- end -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ .secret }}
  labels:
    {{- include "taximeter.labels" .root | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
type: Opaque
data:
  {{ .field }}: {{ $value | b64enc | quote }}
  sha256: {{ $value | sha256sum | b64enc | quote }}
{{- end -}}
{{- end -}}

{{- /* Whether there can be more than one pod; empty: no. */ -}}
{{- define "taximeter.several" -}}
{{- $most := .Values.autoscaling.enabled | ternary .Values.autoscaling.maxReplicas .Values.replicas -}}
{{- if gt (int $most) 1 -}}yes{{- end -}}
{{- end -}}

{{- /* `config` as JSON; fails where it is no TOML, where a setting does not exist, and where the chart sets it. */ -}}
{{- define "taximeter.settings" -}}
{{- $told := fromToml .Values.config -}}
{{- with $told.Error -}}
{{- fail (printf "config: %s" .) -}}
{{- end -}}
{{- range $setting, $value := dict "listen" "service" "admin_listen" "service" "data_dir" "persistence" "workers" "workers" "node" "" -}}
{{- if hasKey $told $setting -}}
{{- fail (printf "config: %s is set by the chart%s" $setting (ternary (printf "; see its value `%s`" $value) "" (ne $value ""))) -}}
{{- end -}}
{{- end -}}
{{- include "taximeter.known" (dict "told" $told "known" (.Files.Get "files/settings.json" | fromJson) "path" "") -}}
{{- $told | toJson -}}
{{- end -}}

{{- /* Fails on the first key of a table that `known` does not have. */ -}}
{{- define "taximeter.known" -}}
{{- range $key, $value := .told -}}
{{- $path := printf "%s%s" $.path $key -}}
{{- if not (hasKey $.known $key) -}}
{{- fail (printf "config: there is no setting %s; known here: %s" $path (keys $.known | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $known := get $.known $key -}}
{{- if kindIs "map" $known -}}
{{- range $table := (kindIs "slice" $value | ternary $value (list $value)) -}}
{{- if not (kindIs "map" $table) -}}
{{- fail (printf "config: %s is a table, and not %v" $path $table) -}}
{{- end -}}
{{- include "taximeter.known" (dict "told" $table "known" $known "path" (printf "%s." $path)) -}}
{{- end -}}
{{- else if and (kindIs "slice" $known) (kindIs "string" $value) (not (contains "${" $value)) (not (has $value $known)) -}}
{{- fail (printf "config: %s = %q; it is one of %s" $path $value (join ", " $known)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Host names under which clients reach the ports, as JSON. */ -}}
{{- define "taximeter.hosts" -}}
{{- $settings := include "taximeter.settings" . | fromJson -}}
{{- $hosts := list -}}
{{- range $name := list (include "taximeter.name" .) (printf "%s-control" (include "taximeter.name" .)) -}}
{{- $long := printf "%s.%s" $name $.Release.Namespace -}}
{{- $hosts = concat $hosts (list $name $long (printf "%s.svc" $long) (printf "%s.svc.cluster.local" $long)) -}}
{{- end -}}
{{- $told := list -}}
{{- with $settings.control -}}
{{- $told = .allowed_hosts | default list -}}
{{- end -}}
{{- concat $hosts (.Values.ingress.enabled | ternary .Values.ingress.hosts list) .Values.allowedHosts $told | uniq | toJson -}}
{{- end -}}

{{- /* The container's environment, alike in the pods and in the test that has `taximeter check` try it. */ -}}
{{- define "taximeter.env" -}}
{{- $settings := include "taximeter.settings" . | fromJson -}}
{{- $auth := $settings.auth | default dict -}}
- name: TAXIMETER_LISTEN
  value: "0.0.0.0:8000"
- name: TAXIMETER_ADMIN_LISTEN
  value: "0.0.0.0:8001"
- name: TAXIMETER_DATA_DIR
  value: /data
- name: TAXIMETER_WORKERS
  value: {{ .Values.workers | quote }}
- name: TAXIMETER_NODE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: TAXIMETER_CONTROL__ALLOWED_HOSTS
  value: {{ include "taximeter.hosts" . | quote }}
- name: TAXIMETER_AUTH__ADMIN_TOKEN_SHA256
  valueFrom:
    secretKeyRef:
      name: {{ include "taximeter.adminSecret" . }}
      key: sha256
{{- if .Values.proxyKey.enabled }}
{{- $number := len ($auth.keys | default list) }}
{{- if not $auth.mode }}
- name: TAXIMETER_AUTH__MODE
  value: keys
{{- end }}
- name: TAXIMETER_AUTH__KEYS__{{ $number }}__ID
  value: {{ .Values.proxyKey.id | quote }}
- name: TAXIMETER_AUTH__KEYS__{{ $number }}__WORKSPACE
  value: {{ .Values.proxyKey.workspace | quote }}
- name: TAXIMETER_AUTH__KEYS__{{ $number }}__SHA256
  valueFrom:
    secretKeyRef:
      name: {{ include "taximeter.keySecret" . }}
      key: sha256
{{- end }}
{{- if .Values.prices }}
- name: TAXIMETER_PRICES_FILE
  value: /etc/taximeter/prices.toml
{{- end }}
{{- range $name, $store := dict "REDIS" .Values.redis "HISTORY" .Values.history }}
{{- if $store.existingSecret }}
- name: TAXIMETER_{{ $name }}__URL
  valueFrom:
    secretKeyRef:
      name: {{ $store.existingSecret }}
      key: url
{{- else if $store.url }}
- name: TAXIMETER_{{ $name }}__URL
  value: {{ $store.url | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What a pod of ours may do: nothing but write to its volumes. */ -}}
{{- define "taximeter.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "taximeter.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
