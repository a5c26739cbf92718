{{- define "balancer.labels" -}}
{ app.kubernetes.io/name: {{ .Release.Name }} }
{{- end }}
{{- /* The port of an address as the configuration writes it. */}}
{{- define "balancer.port" -}}
{{ . | splitList ":" | last }}
{{- end }}
