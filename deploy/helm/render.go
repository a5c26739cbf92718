// Renders the chart as Helm would, as far as the chart goes: `go run render.go CHART RELEASE [FILE.yaml | KEY=VALUE]…`,
// values in YAML, keys with dots. Helm itself is in no Debian; text/template and sprig, which it is made of, are.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(path string) map[string]any {
	text, err := os.ReadFile(path)
	check(err)
	var value map[string]any
	check(yaml.Unmarshal(text, &value))
	return value
}

// merge puts a file of values over those that are there, as Helm does: objects key by key, all else whole.
func merge(over, values map[string]any) {
	for key, value := range over {
		below, isObject := value.(map[string]any)
		if there, ok := values[key].(map[string]any); ok && isObject {
			merge(below, there)
		} else {
			values[key] = value
		}
	}
}

func main() {
	chart, release := os.Args[1], os.Args[2]
	values := read(filepath.Join(chart, "values.yaml"))
	for _, given := range os.Args[3:] {
		key, text, isSet := strings.Cut(given, "=")
		if !isSet {
			merge(read(given), values)
			continue
		}
		keys := strings.Split(key, ".")
		at := values
		for _, one := range keys[:len(keys)-1] {
			at = at[one].(map[string]any)
		}
		var value any
		check(yaml.Unmarshal([]byte(text), &value))
		at[keys[len(keys)-1]] = value
	}
	all := template.New("chart").Option("missingkey=zero").Funcs(sprig.TxtFuncMap())
	all.Funcs(template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var text strings.Builder
			err := all.ExecuteTemplate(&text, name, data)
			return strings.TrimSpace(text.String()), err
		},
		"required": func(why string, value any) (any, error) {
			if value == nil || value == "" {
				return nil, fmt.Errorf("%s", why)
			}
			return value, nil
		},
	})
	paths, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	check(err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		check(err)
		_, err = all.New(filepath.Base(path)).Parse(string(text))
		check(err)
	}
	data := map[string]any{
		"Values":  values,
		"Chart":   read(filepath.Join(chart, "Chart.yaml")),
		"Release": map[string]any{"Name": release, "Namespace": "default"},
	}
	for _, path := range paths {
		if strings.HasSuffix(path, ".yaml") {
			fmt.Println("---")
			check(all.ExecuteTemplate(os.Stdout, filepath.Base(path), data))
		}
	}
}
