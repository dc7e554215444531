"""Drives an agent with the SPIFFE library of PyPI: `fetch` prints one JSON object, `watch` one JSON line an update
until standard input ends. The agent is found by SPIFFE_ENDPOINT_SOCKET."""

import json
import sys
import threading

from spiffe import JwtSvid, SpiffeId, WorkloadApiClient, X509Source

AUDIENCES = {"one", "two"}


def fetch(client):
    result = {}
    fetch_x509(client, result)
    fetch_jwt(client, result)
    with X509Source(client, timeout_in_seconds=10) as source:
        result["source"] = str(source.get_x509_context().default_svid.spiffe_id)
    print(json.dumps(result))


def fetch_x509(client, result):
    bundles = client.fetch_x509_bundles()
    result["x509"] = [show_x509(svid, bundles) for svid in client.fetch_x509_svids()]
    result["x509_bundles"] = {
        str(bundle.trust_domain): len(bundle.x509_authorities) for bundle in bundles.bundles
    }


def show_x509(svid, bundles):
    """The library checks no signatures: each certificate is checked against the next one here."""
    roots = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain).x509_authorities
    for issued, issuer in zip(svid.cert_chain, svid.cert_chain[1:]):
        issued.verify_directly_issued_by(issuer)
    signers = [root for root in roots if is_issued_by(svid.cert_chain[-1], root)]
    public = svid.private_key.public_key().public_numbers()
    return {
        "spiffe_id": str(svid.spiffe_id),
        "chain": len(svid.cert_chain),
        "trusted": len(signers) == 1,
        "key_matches": public == svid.leaf.public_key().public_numbers(),
    }


def is_issued_by(certificate, root):
    try:
        certificate.verify_directly_issued_by(root)
        return True
    except Exception:
        return False


def fetch_jwt(client, result):
    bundles = client.fetch_jwt_bundles()
    svids = client.fetch_jwt_svids(audience=AUDIENCES)
    result["jwt"] = [show_jwt(svid, bundles) for svid in svids]
    result["jwt_bundles"] = {
        str(bundle.trust_domain): len(bundle.jwt_authorities) for bundle in bundles.bundles
    }
    result["validated"] = str(client.validate_jwt_svid(svids[0].token, "one").spiffe_id)
    result["wrong_audience"] = error_of(lambda: client.validate_jwt_svid(svids[0].token, "three"))
    foreign = SpiffeId("spiffe://elsewhere.test/x")
    result["foreign_id"] = error_of(lambda: client.fetch_jwt_svid(audience={"one"}, subject=foreign))
    last = svids[-1].spiffe_id
    result["chosen"] = str(client.fetch_jwt_svid(audience={"one"}, subject=last).spiffe_id)


def show_jwt(svid, bundles):
    bundle = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    checked = JwtSvid.parse_and_validate(svid.token, bundle, {"two"})
    return {
        "spiffe_id": str(svid.spiffe_id),
        "verified": str(checked.spiffe_id),
        "audience": sorted(svid.audience),
    }


def error_of(call):
    try:
        call()
        return None
    except Exception as error:
        return type(error).__name__ + ": " + str(error)


def watch(client):
    lock = threading.Lock()

    def show(line):
        with lock:
            print(json.dumps(line), flush=True)

    def x509(context):
        svids = [
            {"spiffe_id": str(svid.spiffe_id), "serial": format(svid.leaf.serial_number, "x")}
            for svid in context.x509_svids
        ]
        roots = sum(len(bundle.x509_authorities) for bundle in context.x509_bundle_set.bundles)
        show({"x509": svids, "roots": roots})

    def jwt(bundles):
        show({"jwt_keys": sum(len(bundle.jwt_authorities) for bundle in bundles.bundles)})

    def failed(error):
        show({"error": str(error)})

    handlers = [client.stream_x509_contexts(x509, failed), client.stream_jwt_bundles(jwt, failed)]
    sys.stdin.read()
    for handler in handlers:
        handler.cancel()


if __name__ == "__main__":
    with WorkloadApiClient(default_timeout=10) as workload_api:
        {"fetch": fetch, "watch": watch}[sys.argv[1]](workload_api)
