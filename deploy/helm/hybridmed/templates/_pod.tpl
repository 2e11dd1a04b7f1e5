{{- define "hybridmed.labels" -}}
app.kubernetes.io/name: hybridmed
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "hybridmed.allLabels" -}}
{{ include "hybridmed.labels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "hybridmed.name" -}}
{{ printf "%s-%s" .root.Release.Name .role | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "hybridmed.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "hybridmed.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hybridmed.environment" -}}
- {name: HYBRIDMED_CONFIG, value: /etc/hybridmed/hybridmed.toml}
- {name: HYBRIDMED_SECRETS_DIR, value: /run/secrets/hybridmed}
- {name: HYBRIDMED_LOG_FORMAT, value: json}
{{- end }}

{{- define "hybridmed.settingsMounts" -}}
- {name: settings, mountPath: /etc/hybridmed, readOnly: true}
- {name: secrets, mountPath: /run/secrets/hybridmed, readOnly: true}
- {name: scratch, mountPath: /tmp}
{{- end }}

{{- define "hybridmed.settingsVolumes" -}}
- {name: settings, configMap: {name: {{ .Release.Name }}-settings}}
- {name: secrets, secret: {secretName: {{ .Values.secrets.settings }}, defaultMode: 0440}}
- {name: scratch, emptyDir: {sizeLimit: 2Gi}}
{{- end }}

{{- /* The pod of a role. root, role, image, values; optional: port, liveness, gracePeriod, spool, gpu. */ -}}
{{- define "hybridmed.pod" -}}
metadata:
  labels: {{- include "hybridmed.allLabels" . | nindent 4 }}
  annotations:
    checksum/settings: {{ .root.Values.settings | sha256sum }}
spec:
  automountServiceAccountToken: false
  serviceAccountName: {{ .root.Release.Name }}
  terminationGracePeriodSeconds: {{ .gracePeriod | default 90 }}
  securityContext: {{- include "hybridmed.podSecurity" . | nindent 4 }}
  {{- with .root.Values.images.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "hybridmed.labels" . | nindent 10 }}
  containers:
    - name: {{ .role }}
      image: {{ .image | quote }}
      imagePullPolicy: {{ .root.Values.images.pullPolicy }}
      args: [serve, --only, {{ .role }}]
      env: {{- include "hybridmed.environment" . | nindent 8 }}
      {{- with .port }}
      ports: [{name: {{ .name }}, containerPort: {{ .number }}, protocol: TCP}]
      {{- end }}
      {{- with .liveness }}
      startupProbe: {{- merge (dict "periodSeconds" 3 "failureThreshold" 40) . | toYaml | nindent 8 }}
      livenessProbe: {{- merge (dict "periodSeconds" 20 "timeoutSeconds" 5 "failureThreshold" 3) . | toYaml | nindent 8 }}
      readinessProbe: {{- merge (dict "periodSeconds" 5 "timeoutSeconds" 5) . | toYaml | nindent 8 }}
      lifecycle:
        # New associations and requests go elsewhere before we stop to take them.
        preStop: {exec: {command: [sleep, "8"]}}
      {{- else }}
      # No liveness probe: a role that meets a defect ends by itself; a database that is away must not restart pods.
      readinessProbe:
        exec: {command: [hybridmed, health, {{ .role }}]}
        initialDelaySeconds: 5
        periodSeconds: 30
        timeoutSeconds: 15
      {{- end }}
      {{- $resources := deepCopy .values.resources }}
      {{- if .gpu }}
      {{- $resources = mergeOverwrite $resources (dict "limits" (dict "nvidia.com/gpu" .gpu)) }}
      {{- end }}
      resources: {{- toYaml $resources | nindent 8 }}
      securityContext: {{- include "hybridmed.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /data}
        {{- include "hybridmed.settingsMounts" . | nindent 8 }}
  volumes:
    {{- include "hybridmed.settingsVolumes" .root | nindent 4 }}
    {{- if eq .root.Values.files.kind "shared" }}
    - {name: data, persistentVolumeClaim: {claimName: {{ .root.Values.files.sharedClaim }}}}
    {{- else if not .spool }}
    - {name: data, emptyDir: {sizeLimit: {{ .root.Values.files.cacheSize }}}}
    {{- end }}
{{- end }}
