{{- define "remit.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "remit.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "remit.selectorLabels" -}}
app.kubernetes.io/name: {{ include "remit.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "remit.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "remit.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "remit.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "remit.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* What the operator does to what it serves: the same list as manifests/cluster-install, held equal by a test. */}}
{{- define "remit.rules" -}}
- apiGroups: [remit.dev]
  resources: [executiontasks]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [remit.dev]
  resources: [commandpolicies]
  verbs: [get, list, watch]
- apiGroups: [remit.dev]
  resources: [deployments]
  verbs: [get, list, watch, patch]
- apiGroups: [remit.dev]
  resources: [executiontasks/status, commandpolicies/status, deployments/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- if eq (include "remit.jobs" .) "true" }}
{{ include "remit.jobRules" . }}
{{- end }}
{{- if .Values.releases.kubernetes }}
{{ include "remit.releaseRules" . }}
{{- end }}
{{- end }}

{{/* What a release to Kubernetes takes besides. */}}
{{- define "remit.releaseRules" -}}
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}

{{/* Whether who asked for a task is stamped at admission, and so can be believed. */}}
{{- define "remit.requestedBy" -}}
{{- and .Values.requestedBy.enabled (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") }}
{{- end }}

{{/* Where commands run, as flags say it; empty: the operator finds out, which on a cluster is `kubernetes`. */}}
{{- define "remit.backends" -}}
{{- $backends := .Values.backends }}
{{- if and .Values.sandbox.userNamespaces (not $backends) }}
{{- $backends = list "kubernetes" "process" }}
{{- end }}
{{- if and .Values.sandbox.userNamespaces (not (has "process" $backends)) }}
{{- fail "sandbox.userNamespaces is for the backend process: add process to backends, or leave it off" }}
{{- end }}
{{- if and (has "docker" $backends) (eq .Values.dockerHost "off") }}
{{- fail "the backend docker needs an engine: set dockerHost, or take docker out of backends" }}
{{- end }}
{{- toJson $backends }}
{{- end }}

{{- define "remit.jobs" -}}
{{- $backends := include "remit.backends" . | fromJsonArray }}
{{- or (empty $backends) (has "kubernetes" $backends) }}
{{- end }}

{{- define "remit.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What Jobs take: Secrets hold what an attempt is given, a ConfigMap the program that its container starts with. */}}
{{- define "remit.jobRules" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [create, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, delete]
{{- end }}
