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

{{- /* The name, with a suffix, of what is outside of the release's own namespace. A release of the same name in another
namespace has other names there: a namespace has no dot. */}}
{{- define "remit.outsideName" -}}
{{- $root := index . 0 -}}
{{ include "remit.fullname" $root }}{{ index . 1 }}.{{ $root.Release.Namespace }}
{{- end }}

{{- define "remit.leaseName" -}}
{{ include "remit.fullname" . }}-operator
{{- end }}

{{- /* What runs the operator: with a volume for each replica, or without. */}}
{{- define "remit.workloadKind" -}}
{{ .Values.persistence.enabled | ternary "StatefulSet" "Deployment" }}
{{- end }}

{{- /* A StatefulSet puts a hash behind its name into a label, which has at most 63 characters. */}}
{{- define "remit.workloadName" -}}
{{ include "remit.fullname" . | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- /* The matchers of this release's series: the ServiceMonitor's job is the Service. */}}
{{- define "remit.metricSelector" -}}
{{- .Values.prometheusRule.selector | default (printf "job=%q,namespace=%q" (include "remit.fullname" .) .Release.Namespace) }}
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

{{- define "remit.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* Whether the CRDs come with this release. They are the cluster's, and so is nothing else of one with `namespaces`;
but where they go with the release, they must not vanish from it. */}}
{{- define "remit.installsCRDs" -}}
{{- if eq (toString .Values.crds.install) "auto" }}
{{- or (empty .Values.namespaces) (not .Values.crds.keep) }}
{{- else }}
{{- .Values.crds.install }}
{{- end }}
{{- end }}

{{- /* Where commands run, as flags say it; empty: the operator finds out, which on a cluster is `kubernetes`. */}}
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

{{- /* Whether who asked for a task is stamped at admission by this release. */}}
{{- define "remit.requestedBy" -}}
{{- and .Values.requestedBy.enabled (empty .Values.namespaces) (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") }}
{{- end }}

{{- /* The Secret with the configuration of notifications; empty: nobody is told anything. */}}
{{- define "remit.notifications" -}}
{{- if .Values.notifications.existingSecret -}}
{{- .Values.notifications.existingSecret -}}
{{- else if .Values.notifications.config -}}
{{- include "remit.fullname" . }}-notifications
{{- end -}}
{{- end }}
