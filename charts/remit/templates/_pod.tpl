{{- /* The pod template of the operator, which its Deployment or its StatefulSet has. */}}
{{- define "remit.pod" -}}
metadata:
  labels:
    {{- include "remit.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or .Values.podAnnotations .Values.notifications.config }}
  annotations:
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .Values.notifications.config }}
    # What is read at the start is read again when it changes.
    checksum/notifications: {{ toYaml . | sha256sum }}
    {{- end }}
  {{- end }}
spec:
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  serviceAccountName: {{ include "remit.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- $pod := .Values.podSecurityContext }}
  {{- $container := .Values.securityContext }}
  {{- if .Values.sandbox.userNamespaces }}
  hostUsers: false
  {{- $pod = merge (dict "seccompProfile" (dict "type" "Unconfined")) (omit $pod "seccompProfile") }}
  {{- $container = merge (dict "procMount" "Unmasked") $container }}
  {{- end }}
  securityContext:
    {{- toYaml $pod | nindent 4 }}
  containers:
    - name: operator
      image: {{ include "remit.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - operator
        {{- range .Values.namespaces }}
        - --namespace={{ . }}
        {{- end }}
        - --operator-namespace=$(POD_NAMESPACE)
        - --lease-name={{ include "remit.leaseName" . }}
        - --replicas={{ .Values.replicaCount }}
        - --metrics-address=0.0.0.0:8080
        {{- if .Values.metrics.tokenSecret.name }}
        - --metrics-token-file=/run/metrics-token/token
        {{- end }}
        - --state-dir=/var/lib/remit
        - --max-artifacts={{ .Values.maxArtifacts }}
        {{- with .Values.artifacts.s3 }}
        {{- if .bucket }}
        - --artifact-store=s3://{{ .bucket }}{{ with .prefix }}/{{ . }}{{ end }}
        {{- with .endpoint }}
        - --s3-endpoint={{ . }}
        {{- end }}
        {{- with .region }}
        - --s3-region={{ . }}
        {{- end }}
        {{- if .existingSecret }}
        - --s3-credentials=/run/artifact-store/credentials
        {{- end }}
        {{- if .caConfigMap }}
        - --s3-ca-file=/run/artifact-store/authorities/ca.crt
        {{- end }}
        {{- end }}
        {{- end }}
        {{- with .Values.retention }}
        - --output-max-age={{ .outputMaxAge }}
        - --max-output={{ .maxOutput }}
        - --artifacts-max-age={{ .artifactsMaxAge }}
        - --audit-max-age={{ .auditMaxAge }}
        - --max-audit={{ .maxAudit }}
        - --finished-task-ttl={{ .finishedTaskTTL }}
        {{- end }}
        - --max-concurrent={{ .Values.maxConcurrent }}
        - --log-format={{ .Values.logs.format }}
        - --log-level={{ .Values.logs.level }}
        {{- if or (eq (include "remit.requestedBy" .) "true") .Values.requestedBy.trust }}
        - --trust-requested-by
        {{- end }}
        - --docker-host={{ .Values.dockerHost }}
        {{- range include "remit.backends" . | fromJsonArray }}
        - --backend={{ . }}
        {{- end }}
        {{- if .Values.acceptUnenforcedNetwork }}
        - --accept-unenforced-network
        {{- end }}
        {{- with .Values.workspaces.storageClassName }}
        - --storage-class={{ . }}
        {{- end }}
        {{- if include "remit.notifications" . }}
        - --notifications=/etc/remit/notifications/notifications.yaml
        {{- end }}
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        - name: POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        # Kustomize can set a variable's value as it sets the image above, and an argument it cannot.
        - name: REMIT_IMAGE
          value: {{ include "remit.image" . | quote }}
        {{- if ne .Values.defaultImage "off" }}
        - name: REMIT_DEFAULT_IMAGE
          value: {{ .Values.defaultImage | default (include "remit.image" .) | quote }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: http
          containerPort: 8080
      securityContext:
        {{- toYaml $container | nindent 8 }}
      {{- with .Values.livenessProbe }}
      livenessProbe:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.readinessProbe }}
      readinessProbe:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: state
          mountPath: /var/lib/remit
        - name: tmp
          mountPath: /tmp
        {{- if .Values.metrics.tokenSecret.name }}
        - name: metrics-token
          mountPath: /run/metrics-token
          readOnly: true
        {{- end }}
        {{- if and .Values.artifacts.s3.bucket .Values.artifacts.s3.existingSecret }}
        - name: artifact-store
          mountPath: /run/artifact-store/credentials
          readOnly: true
        {{- end }}
        {{- if and .Values.artifacts.s3.bucket .Values.artifacts.s3.caConfigMap }}
        - name: artifact-store-authorities
          mountPath: /run/artifact-store/authorities
          readOnly: true
        {{- end }}
        {{- if include "remit.notifications" . }}
        - name: notifications
          mountPath: /etc/remit/notifications
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if not .Values.persistence.enabled }}
    # The run store and the audit trail, which go with the pod.
    - name: state
      emptyDir:
        sizeLimit: {{ .Values.persistence.size }}
    {{- else if .Values.persistence.existingClaim }}
    - name: state
      persistentVolumeClaim:
        claimName: {{ .Values.persistence.existingClaim }}
    {{- end }}
    - name: tmp
      emptyDir:
        sizeLimit: {{ .Values.tmp.sizeLimit }}
    {{- with .Values.metrics.tokenSecret }}
    {{- if .name }}
    - name: metrics-token
      secret:
        secretName: {{ .name }}
        items:
          - key: {{ .key }}
            path: token
    {{- end }}
    {{- end }}
    {{- with .Values.artifacts.s3 }}
    {{- if and .bucket .existingSecret }}
    - name: artifact-store
      secret:
        secretName: {{ .existingSecret }}
        items:
          - key: {{ .accessKeyIdKey }}
            path: access-key-id
          - key: {{ .secretAccessKeyKey }}
            path: secret-access-key
          {{- with .sessionTokenKey }}
          - key: {{ . }}
            path: session-token
          {{- end }}
    {{- end }}
    {{- if and .bucket .caConfigMap }}
    - name: artifact-store-authorities
      configMap:
        name: {{ .caConfigMap }}
        items:
          - key: {{ .caKey }}
            path: ca.crt
    {{- end }}
    {{- end }}
    {{- with include "remit.notifications" . }}
    - name: notifications
      secret:
        secretName: {{ . }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- $own := dict "labelSelector" (dict "matchLabels" (include "remit.selectorLabels" $ | fromYaml)) }}
    {{- range . }}
    - {{- hasKey . "labelSelector" | ternary . (merge (deepCopy .) $own) | toYaml | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- if or .Values.tolerations (eq (int .Values.replicaCount) 1) }}
  tolerations:
    {{- if eq (int .Values.replicaCount) 1 }}
    # A pod that is cut off may still be working, and must not be replaced. With more replicas it may.
    - key: node.kubernetes.io/unreachable
      operator: Exists
      effect: NoExecute
    {{- end }}
    {{- with .Values.tolerations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end }}
