{{- define "holdfast.name" -}}holdfast-agent{{- end }}

{{- define "holdfast.selector" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/component: agent
{{- end }}

{{- define "holdfast.labels" -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "holdfast.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Keys lie in locked memory that no dump contains. A node has many pods and one agent: its young heap stays small. */}}
{{- define "holdfast.command" -}}
[/bin/node, --secure-heap=1048576, --secure-heap-min=2, --max-semi-space-size=4, /app/dist/holdfast.js]
{{- end }}

{{- define "holdfast.onOff" -}}{{ if . }}on{{ else }}off{{ end }}{{- end }}

{{/* Not empty where pods may be known from the kubelet over HTTPS, which takes a token and a right; by its Pods API it takes neither. */}}
{{- define "holdfast.asksKubelet" -}}{{ if ne .Values.kubelet.attestor "pods_api" }}yes{{ end }}{{- end }}

{{- define "holdfast.asksPodsApi" -}}{{ if ne .Values.kubelet.attestor "kubelet" }}yes{{ end }}{{- end }}

{{- define "holdfast.pinsKubelet" -}}
{{ if and (include "holdfast.asksKubelet" .) (eq .Values.kubelet.verification "pinned") }}yes{{ end }}
{{- end }}

{{/* Not empty where the agent shows a token to somebody. */}}
{{- define "holdfast.hasToken" -}}
{{ if or (include "holdfast.asksKubelet" .) .Values.customResources.enabled }}yes{{ end }}
{{- end }}

{{/* The configuration of the agent: what the chart says, and values.config over it. */}}
{{- define "holdfast.config" -}}
{{- $pinned := include "holdfast.pinsKubelet" . -}}
trust_domain: {{ required "trustDomain has no default: set it to the name of your trust domain" .Values.trustDomain }}
dir: /run/holdfast
socket_aliases: {{ toJson .Values.socketAliases }}
policy:
  files: [policy]
authority:
  nodes: many
  {{- if .Values.authority.separateRoots }}
  separate_roots: true
  {{- end }}
  {{- if .Values.authority.caSecret }}
  ca:
    certificate_file: /etc/holdfast/ca/tls.crt
    key_file: /etc/holdfast/ca/tls.key
    chain_file: /etc/holdfast/ca/ca.crt
  {{- end }}
  {{- if .Values.authority.jwtKeysSecret }}
  jwt_keys_file: /etc/holdfast/jwt-keys/jwks.json
  {{- end }}
egress:
  socket: {{ include "holdfast.onOff" .Values.egress.enabled | quote }}
verifier:
  socket: {{ include "holdfast.onOff" .Values.verifier.enabled | quote }}
audit:
  sink: stdout
ops:
  listen: pod:{{ .Values.ops.port }}
kubernetes:
  attestor: {{ .Values.kubelet.attestor }}
  {{- if include "holdfast.asksKubelet" . }}
  kubelet:
    verification: {{ .Values.kubelet.verification }}
    {{- if $pinned }}
    certificate_file: /etc/holdfast/kubelet/kubelet.crt
    {{- end }}
  {{- end }}
  {{- if .Values.customResources.enabled }}
  resources:
    source: api_server
  {{- end }}
{{- end }}
