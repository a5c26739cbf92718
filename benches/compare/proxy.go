// Two programs in one: `proxy LISTEN TO[,TO]` is Go's httputil.ReverseProxy, the floor to stay below; `backend LISTEN`
// is what uploads, slow answers, streams and stalls are measured against (nginx answers before it has read a body).
package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

func main() {
	handler := http.Handler(http.HandlerFunc(backend))
	if os.Args[1] == "proxy" {
		handler = proxy(strings.Split(os.Args[3], ","))
	}
	log.Fatal((&http.Server{Addr: os.Args[2], Handler: handler}).ListenAndServe())
}

// Until when every request waits, in nanoseconds since 1970.
var stalledUntil atomic.Int64

func backend(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/stall": // from now on, for 5 s
		stalledUntil.Store(time.Now().Add(5 * time.Second).UnixNano())
		return
	case "/stream": // one event at once, the next after 20 ms
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no") // nginx would gather it
		w.Write([]byte("data: 1\n\n"))
		w.(http.Flusher).Flush()
		time.Sleep(20 * time.Millisecond)
		w.Write([]byte("data: 2\n\n"))
		return
	}
	if left := stalledUntil.Load() - time.Now().UnixNano(); left > 0 {
		time.Sleep(time.Duration(left))
	}
	if r.URL.Query().Get("delay") != "" || os.Getenv("DELAY") != "" {
		time.Sleep(100 * time.Millisecond)
	}
	n, _ := io.Copy(io.Discard, r.Body)
	_ = n
	w.Write([]byte("ok"))
}

func proxy(to []string) http.Handler {
	var proxies []*httputil.ReverseProxy
	for _, t := range to {
		target, err := url.Parse(t)
		if err != nil {
			log.Fatal(err)
		}
		p := httputil.NewSingleHostReverseProxy(target)
		p.Transport = &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, DisableCompression: true}
		p.ErrorLog = log.New(io.Discard, "", 0)
		proxies = append(proxies, p)
	}
	var next atomic.Uint64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxies[next.Add(1)%uint64(len(proxies))].ServeHTTP(w, r)
	})
}
