{{/* The settings of the values, with the queues of models that follow from worker.queues. */}}
{{- define "mlaas.own" -}}
{{- $own := deepCopy .Values.settings }}
{{- $queues := dict }}
{{- range $queue, $its := .Values.worker.queues }}
{{- if eq $queue "shared" }}
{{- fail "worker.queues: the queue shared is that of all other models; worker itself has its values" }}
{{- end }}
{{- range $model := $its.models.names }}
{{- if hasKey $queues $model }}
{{- fail (printf "worker.queues: the model %s is in the queues %s and %s" $model (get $queues $model) $queue) }}
{{- end }}
{{- $_ := set $queues $model $queue }}
{{- end }}
{{- end }}
{{- with $queues }}
{{- $own = mustMergeOverwrite $own (dict "topics" (dict "queues" .)) }}
{{- end }}
{{- toYaml $own }}
{{- end }}

{{/* The settings in effect: those of the service, in config.yaml, with those of the values over them. */}}
{{- define "mlaas.settings" -}}
{{- $settings := .Files.Get "config.yaml" | fromYaml }}
{{- $own := include "mlaas.own" . | fromYaml }}
{{- range $section, $values := $own }}
{{- range $name, $_ := $values }}
{{- if not (hasKey (get $settings $section) $name) }}
{{- fail (printf "settings.%s.%s: there is no such setting; config.yaml has them all" $section $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- mustMergeOverwrite $settings $own | toYaml }}
{{- end }}

{{/* The queues of models, the shared one first, each with the values for its workers and what KEDA asks of it. */}}
{{- define "mlaas.queues" -}}
{{- $settings := include "mlaas.settings" . | fromYaml }}
{{- $group := $settings.worker.group }}
{{- $scaling := mustMergeOverwrite (pick .Values.scaling "requestsPerWorker" "jobPicturesPerWorker") .Values.scaling.worker }}
{{- $common := mustMergeOverwrite (omit .Values.worker "queues") (dict "scaling" $scaling) }}
{{- $shared := dict "name" "shared" "deployment" (printf "%s-worker" .Release.Name) "jobs" $settings.topics.jobs "group" (printf "%s.jobs" $group) }}
{{- $queues := list (mustMergeOverwrite (deepCopy $common) $shared) }}
{{- range $name, $values := .Values.worker.queues }}
{{- $its := dict
      "name" $name
      "deployment" (printf "%s-worker-%s" $.Release.Name $name)
      "jobs" (printf "%s.%s" $settings.topics.jobs $name)
      "group" (printf "%s.jobs.%s" $group $name) }}
{{- $models := $values.models }}
{{- if not (or $models.volume $models.fetch) }}
{{- $models = mustMergeOverwrite (deepCopy $common.models) $models }}
{{- end }}
{{- $its = mustMergeOverwrite (deepCopy $common) (omit $values "models") $its }}
{{- $queues = append $queues (set $its "models" $models) }}
{{- end }}
{{- toYaml $queues }}
{{- end }}

{{- define "mlaas.labels" -}}
{{ include "mlaas.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "mlaas.selector" -}}
app.kubernetes.io/name: mlaas
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .part }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .queue }}
mlaas/queue: {{ . }}
{{- end }}
{{- end }}

{{/* .Values.kafka, with what follows from Strimzi's names. */}}
{{- define "mlaas.kafka" -}}
{{- $kafka := deepCopy .Values.kafka }}
{{- with $kafka.strimzi }}
{{- $users := dict }}
{{- range $role, $_ := $.Files.Get "rights.yaml" | fromYaml }}
{{- $name := printf "%s-%s" $.Release.Name $role }}
{{- $_ := set $users $role (dict "name" $name "secret" $name "key" "password") }}
{{- end }}
{{- $kafka = mustMergeOverwrite $kafka (dict
      "servers" (printf "%s-kafka-bootstrap:9093" .)
      "protocol" "SASL_SSL"
      "mechanism" "SCRAM-SHA-512"
      "ca" (dict "secret" (printf "%s-cluster-ca-cert" .) "key" "ca.crt")
      "users" $users) }}
{{- end }}
{{- toYaml $kafka }}
{{- end }}

{{/* The topics that have a name in the settings: requests and jobs have one for each queue. */}}
{{- define "mlaas.topics" -}}
{{- $topics := (include "mlaas.settings" .root | fromYaml).topics }}
{{- $first := get $topics .name }}
- {{ $first }}
{{- if has .name (list "requests" "jobs") }}
{{- range $queue := without (values $topics.queues | uniq | sortAlpha) "shared" }}
- {{ $first }}.{{ $queue }}
{{- end }}
{{- end }}
{{- end }}

{{/* The variables with the broker's URL, for the user of a role. Kubernetes puts the password into the URL. */}}
{{- define "mlaas.broker" -}}
{{- with .root.Values.pubsub.project }}
- name: MLAAS_BROKER__URL
  value: {{ printf "pubsub://%s" . | quote }}
{{- else }}
{{- $kafka := include "mlaas.kafka" .root | fromYaml }}
{{- $user := get $kafka.users .role }}
{{- $properties := $kafka.properties }}
{{- $credentials := "" }}
{{- if ne $kafka.protocol "PLAINTEXT" }}
{{- $properties = set $properties "security.protocol" $kafka.protocol }}
{{- end }}
{{- if $kafka.ca.secret }}
{{- $properties = set $properties "ssl.ca.location" (printf "/etc/kafka-ca/%s" $kafka.ca.key) }}
{{- end }}
{{- if hasPrefix "SASL" $kafka.protocol }}
{{- $properties = set $properties "sasl.mechanism" $kafka.mechanism }}
{{- $credentials = "$(KAFKA_USER):$(KAFKA_PASSWORD)@" }}
- name: KAFKA_USER
  value: {{ required (printf "kafka.users.%s.name is needed, because kafka.protocol is %s" .role $kafka.protocol) $user.name | quote }}
- name: KAFKA_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ required (printf "kafka.users.%s.secret is needed, because kafka.protocol is %s" .role $kafka.protocol) $user.secret }}
      key: {{ $user.key }}
{{- end }}
{{- $query := list }}
{{- range $name, $value := $properties }}
{{- $query = append $query (printf "%s=%s" $name (toString $value | urlquery)) }}
{{- end }}
- name: MLAAS_BROKER__URL
  value: {{ printf "kafka://%s%s%s" $credentials $kafka.servers (empty $query | ternary "" (printf "?%s" (join "&" $query))) | quote }}
{{- end }}
{{- end }}

{{/* The head of a pod's spec: it can do no more than it must. */}}
{{- define "mlaas.pod" -}}
# With service links, a Service named mlaas would set MLAAS_PORT, which looks like a setting.
enableServiceLinks: false
automountServiceAccountToken: false
{{- with .Values.pubsub.serviceAccount }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "mlaas.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Spread over nodes and zones as far as there are several. */}}
{{- define "mlaas.spread" -}}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "mlaas.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{/* What every pod mounts: its settings, a writable /tmp, the broker's CA. */}}
{{- define "mlaas.mounts" -}}
- {name: settings, mountPath: /etc/mlaas, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if (include "mlaas.kafka" . | fromYaml).ca.secret }}
- {name: kafka-ca, mountPath: /etc/kafka-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "mlaas.volumes" -}}
- name: settings
  configMap: {name: {{ .Release.Name }}-settings}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- with (include "mlaas.kafka" . | fromYaml).ca.secret }}
- name: kafka-ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}

{{- define "mlaas.image" -}}
{{ get .root.Values.image .part }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}
