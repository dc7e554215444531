// Command client drives an agent with go-spiffe: `fetch` prints one JSON object, `watch` one JSON line an update
// until standard input ends. The agent is found by SPIFFE_ENDPOINT_SOCKET.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/exp/svid/witsvid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

type object = map[string]any

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := workloadapi.New(ctx)
	if err == nil {
		defer client.Close()
		switch {
		case len(os.Args) == 2 && os.Args[1] == "fetch":
			err = fetch(ctx, client)
		case len(os.Args) == 2 && os.Args[1] == "watch":
			err = watch(ctx, client)
		default:
			err = fmt.Errorf("usage: client fetch|watch")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fetch(ctx context.Context, client *workloadapi.Client) error {
	result := object{}
	for _, part := range []func(context.Context, *workloadapi.Client, object) error{fetchX509, fetchJWT, fetchWIT, handshake} {
		if err := part(ctx, client, result); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func fetchX509(ctx context.Context, client *workloadapi.Client, result object) error {
	svids, err := client.FetchX509SVIDs(ctx)
	if err != nil {
		return err
	}
	bundles, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	shown := []object{}
	for _, svid := range svids {
		id, _, err := x509svid.Verify(svid.Certificates, bundles)
		if err != nil {
			return err
		}
		leaf := svid.Certificates[0]
		shown = append(shown, object{
			"spiffe_id": svid.ID, "verified": id, "hint": svid.Hint, "dns": leaf.DNSNames,
			"chain": len(svid.Certificates), "signature": leaf.SignatureAlgorithm.String(),
		})
	}
	result["x509"] = shown
	roots := object{}
	for _, bundle := range bundles.Bundles() {
		roots[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	result["x509_bundles"] = roots
	return nil
}

func fetchJWT(ctx context.Context, client *workloadapi.Client, result object) error {
	svids, err := client.FetchJWTSVIDs(ctx, jwtsvid.Params{Audience: "one", ExtraAudiences: []string{"two"}})
	if err != nil {
		return err
	}
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	shown := []object{}
	for _, svid := range svids {
		checked, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{"two"})
		if err != nil {
			return err
		}
		shown = append(shown, object{
			"spiffe_id": svid.ID, "verified": checked.ID, "hint": svid.Hint, "audience": svid.Audience,
		})
	}
	result["jwt"] = shown
	keys := object{}
	for _, bundle := range bundles.Bundles() {
		keys[bundle.TrustDomain().Name()] = len(bundle.JWTAuthorities())
	}
	result["jwt_bundles"] = keys
	validated, err := client.ValidateJWTSVID(ctx, svids[0].Marshal(), "one")
	if err != nil {
		return err
	}
	result["validated"] = validated.ID
	_, err = client.ValidateJWTSVID(ctx, svids[0].Marshal(), "three")
	result["wrong_audience"] = status.Code(err).String()
	foreign := spiffeid.RequireFromString("spiffe://elsewhere.test/x")
	_, err = client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "one", Subject: foreign})
	result["foreign_id"] = status.Code(err).String()
	second, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "one", Subject: svids[len(svids)-1].ID})
	if err != nil {
		return err
	}
	result["chosen"] = second.ID
	return nil
}

func fetchWIT(ctx context.Context, client *workloadapi.Client, result object) error {
	svids, err := client.FetchWITSVIDs(ctx, "")
	if err != nil {
		return err
	}
	bundles, err := client.FetchWITBundles(ctx)
	if err != nil {
		return err
	}
	shown := []object{}
	for _, svid := range svids {
		checked, err := witsvid.ParseAndValidate(svid.Marshal(), bundles)
		if err != nil {
			return err
		}
		shown = append(shown, object{"spiffe_id": svid.ID, "verified": checked.ID, "hint": svid.Hint})
	}
	result["wit"] = shown
	keys := object{}
	for _, bundle := range bundles.Bundles() {
		keys[bundle.TrustDomain().Name()] = len(bundle.WITAuthorities())
	}
	result["wit_bundles"] = keys
	return nil
}

// handshake makes mutual TLS between two ends that both live on X509Source.
func handshake(ctx context.Context, client *workloadapi.Client, result object) error {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClient(client))
	if err != nil {
		return err
	}
	defer source.Close()
	near, far := net.Pipe()
	server := tls.Server(near, tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny()))
	answered := make(chan error, 1)
	go func() { answered <- server.HandshakeContext(ctx) }()
	dialer := tls.Client(far, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeAny()))
	if err := dialer.HandshakeContext(ctx); err != nil {
		return err
	}
	if err := <-answered; err != nil {
		return err
	}
	id, err := x509svid.IDFromCert(server.ConnectionState().PeerCertificates[0])
	if err != nil {
		return err
	}
	result["mtls_peer"] = id
	return nil
}

// watcher prints each update; go-spiffe calls it from two goroutines.
type watcher struct {
	mutex sync.Mutex
}

func (w *watcher) print(line object) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	svids, roots := []object{}, 0
	for _, svid := range update.SVIDs {
		svids = append(svids, object{"spiffe_id": svid.ID, "serial": svid.Certificates[0].SerialNumber.Text(16)})
	}
	for _, bundle := range update.Bundles.Bundles() {
		roots += len(bundle.X509Authorities())
	}
	w.print(object{"x509": svids, "roots": roots})
}

func (w *watcher) OnX509ContextWatchError(err error) {
	w.print(object{"x509_error": status.Code(err).String()})
}

func (w *watcher) OnJWTBundlesUpdate(update *jwtbundle.Set) {
	keys := 0
	for _, bundle := range update.Bundles() {
		keys += len(bundle.JWTAuthorities())
	}
	w.print(object{"jwt_keys": keys})
}

func (w *watcher) OnJWTBundlesWatchError(err error) {
	w.print(object{"jwt_error": status.Code(err).String()})
}

func watch(ctx context.Context, client *workloadapi.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	printer := &watcher{}
	var group sync.WaitGroup
	group.Add(2)
	go func() {
		defer group.Done()
		_ = client.WatchX509Context(ctx, printer)
	}()
	go func() {
		defer group.Done()
		_ = client.WatchJWTBundles(ctx, printer)
	}()
	group.Wait()
	return nil
}
