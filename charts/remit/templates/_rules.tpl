{{- /* What the operator does, by feature. A test holds this to the requests that the operator makes. */}}

{{- define "remit.rules.tasks" -}}
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
{{- end }}

{{- /* Of the operator's own namespace, which has the policies that are the ceiling for all. All kinds are watched in the
same namespaces; tasks and Deployments of one that is not served are ignored. */}}
{{- define "remit.rules.ceiling" -}}
- apiGroups: [remit.dev]
  resources: [commandpolicies]
  verbs: [get, list, watch]
- apiGroups: [remit.dev]
  resources: [executiontasks, deployments]
  verbs: [list, watch]
- apiGroups: [remit.dev]
  resources: [commandpolicies/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}

{{- /* Secrets hold what an attempt is given and the program that its container starts with, claims workspaces. */}}
{{- define "remit.rules.jobs" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, delete]
{{- end }}

{{- define "remit.rules.releases" -}}
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
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}

{{- /* What binds the operator to a role: root, kind, name, namespace or "".  */}}
{{- define "remit.binding" -}}
{{- $root := index . 0 }}{{ $kind := index . 1 }}{{ $name := index . 2 }}{{ $namespace := index . 3 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "remit.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "remit.serviceAccountName" $root }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}
