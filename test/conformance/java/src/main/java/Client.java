import com.google.gson.Gson;
import io.spiffe.bundle.jwtbundle.JwtBundleSet;
import io.spiffe.bundle.x509bundle.X509BundleSet;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.spiffeid.TrustDomain;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;

/**
 * Drives an agent with java-spiffe: {@code fetch} prints one JSON object, {@code watch} one JSON line an update until
 * standard input ends. The agent is found by SPIFFE_ENDPOINT_SOCKET.
 */
public final class Client {
  public static void main(String[] arguments) throws Exception {
    try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
      if (arguments[0].equals("watch")) watch(client);
      else fetch(client);
    }
    System.exit(0);
  }

  private static void fetch(WorkloadApiClient client) throws Exception {
    Map<String, Object> result = new LinkedHashMap<>();
    fetchX509(client, result);
    fetchJwt(client, result);
    try (DefaultX509Source source = DefaultX509Source.newSource()) {
      result.put("source", source.getX509Svid().getSpiffeId().toString());
    }
    print(result);
  }

  private static void fetchX509(WorkloadApiClient client, Map<String, Object> result) throws Exception {
    X509BundleSet bundles = client.fetchX509Bundles();
    List<Object> svids = new ArrayList<>();
    for (X509Svid svid : client.fetchX509Context().getX509Svids()) {
      X509SvidValidator.verifyChain(svid.getChain(), bundles);
      X509SvidValidator.verifySpiffeId(svid.getLeaf(), () -> Set.of(svid.getSpiffeId()));
      svids.add(Map.of(
          "spiffe_id", svid.getSpiffeId().toString(),
          "hint", String.valueOf(svid.getHint()),
          "chain", svid.getChain().size()));
    }
    result.put("x509", svids);
    Map<String, Integer> roots = new LinkedHashMap<>();
    bundles.getBundles().forEach((domain, bundle) -> roots.put(domain.toString(), bundle.getX509Authorities().size()));
    result.put("x509_bundles", roots);
  }

  private static void fetchJwt(WorkloadApiClient client, Map<String, Object> result) throws Exception {
    JwtBundleSet bundles = client.fetchJwtBundles();
    List<JwtSvid> svids = client.fetchJwtSvids("one", "two");
    List<Object> shown = new ArrayList<>();
    for (JwtSvid svid : svids) {
      JwtSvid checked = JwtSvid.parseAndValidate(svid.getToken(), bundles, Set.of("two"));
      shown.add(Map.of(
          "spiffe_id", svid.getSpiffeId().toString(),
          "verified", checked.getSpiffeId().toString(),
          "hint", String.valueOf(svid.getHint()),
          "audience", new TreeSet<>(svid.getAudience())));
    }
    result.put("jwt", shown);
    Map<String, Integer> keys = new LinkedHashMap<>();
    bundles.getBundles().forEach((domain, bundle) -> keys.put(domain.toString(), bundle.getJwtAuthorities().size()));
    result.put("jwt_bundles", keys);
    String token = svids.get(0).getToken();
    result.put("validated", client.validateJwtSvid(token, "one").getSpiffeId().toString());
    result.put("wrong_audience", errorOf(() -> client.validateJwtSvid(token, "three")));
    SpiffeId foreign = SpiffeId.fromSegments(TrustDomain.parse("elsewhere.test"), "x");
    result.put("foreign_id", errorOf(() -> client.fetchJwtSvid(foreign, "one")));
    SpiffeId last = svids.get(svids.size() - 1).getSpiffeId();
    result.put("chosen", client.fetchJwtSvid(last, "one").getSpiffeId().toString());
  }

  private static String errorOf(Callable<?> call) {
    try {
      call.call();
      return "";
    } catch (Exception error) {
      return error + " / " + error.getCause();
    }
  }

  private static void watch(WorkloadApiClient client) throws Exception {
    client.watchX509Context(new Printer<X509Context>() {
      @Override
      public void onUpdate(X509Context context) {
        List<Object> svids = new ArrayList<>();
        for (X509Svid svid : context.getX509Svids()) {
          svids.add(Map.of(
              "spiffe_id", svid.getSpiffeId().toString(),
              "serial", svid.getLeaf().getSerialNumber().toString(16)));
        }
        int roots = context.getX509BundleSet().getBundles().values().stream()
            .mapToInt(bundle -> bundle.getX509Authorities().size()).sum();
        print(Map.of("x509", svids, "roots", roots));
      }
    });
    client.watchJwtBundles(new Printer<JwtBundleSet>() {
      @Override
      public void onUpdate(JwtBundleSet bundles) {
        int keys = bundles.getBundles().values().stream()
            .mapToInt(bundle -> bundle.getJwtAuthorities().size()).sum();
        print(Map.of("jwt_keys", keys));
      }
    });
    System.in.readAllBytes();
  }

  private abstract static class Printer<T> implements Watcher<T> {
    @Override
    public void onError(Throwable error) {
      print(Map.of("error", String.valueOf(error)));
    }
  }

  private static synchronized void print(Object line) {
    System.out.println(new Gson().toJson(line));
    System.out.flush();
  }
}
