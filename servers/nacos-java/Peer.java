import com.alibaba.nacos.api.naming.NamingFactory;
import com.alibaba.nacos.api.naming.NamingService;
import com.alibaba.nacos.api.naming.listener.EventListener;
import com.alibaba.nacos.api.naming.listener.NamingEvent;
import com.alibaba.nacos.api.naming.pojo.Instance;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * A program on the Java client of Nacos. The tests of rollcall run it next to the package, on the same server, to see that
 * each side reads what the other side wrote.
 *
 * <p>It reads one JSON command per line from standard input and writes one JSON answer per line to standard output. A command
 * has an "id" of the caller's choice, which its answer repeats, and names a service of a group:
 *
 * <pre>
 * {"id":1,"op":"register","service":"hello","group":"DEFAULT_GROUP","host":{"ip":"10.0.0.1","port":80,"metadata":{"a":"b"}}}
 * {"id":2,"op":"batch","service":"hello","group":"DEFAULT_GROUP","hosts":[…]}
 * {"id":3,"op":"deregister","service":"hello","group":"DEFAULT_GROUP","host":{…}}
 * {"id":4,"op":"get","service":"hello","group":"DEFAULT_GROUP"}       all hosts, asked of the server
 * {"id":5,"op":"select","service":"hello","group":"DEFAULT_GROUP"}    those that may be called
 * {"id":6,"op":"services","group":"DEFAULT_GROUP"}
 * {"id":7,"op":"subscribe","service":"hello","group":"DEFAULT_GROUP"}
 * {"id":8,"op":"stop"}
 * </pre>
 *
 * <p>An answer is {"id":4,"ok":true,…} or {"id":4,"ok":false,"error":"…"}, with "hosts" or "services". A subscription writes
 * {"event":"list","subscription":7,"hosts":[…]} for every list that the client tells of.
 *
 * <p>"stop" closes the client. The end of standard input ends the process at once, like a crash.
 *
 * <p>Arguments: host:port of HTTP, the port of gRPC, the id of a namespace, and a folder for what the client writes.
 */
public final class Peer {
  private static final ObjectMapper json = new ObjectMapper();
  private static final int MOST_SERVICES = 1000;

  private final NamingService naming;
  private final PrintStream output = new PrintStream(System.out, false, StandardCharsets.UTF_8);
  private final Map<Long, EventListener> listeners = new ConcurrentHashMap<>();

  private Peer(NamingService naming) {
    this.naming = naming;
  }

  public static void main(String[] arguments) throws Exception {
    String server = arguments[0];
    int httpPort = Integer.parseInt(server.substring(server.lastIndexOf(':') + 1));
    int grpcPort = Integer.parseInt(arguments[1]);
    // Both are read when the classes of the client are loaded.
    System.setProperty("user.home", arguments[3]);
    System.setProperty("nacos.server.grpc.port.offset", String.valueOf(grpcPort - httpPort));
    Properties properties = new Properties();
    properties.setProperty("serverAddr", server);
    properties.setProperty("namespace", arguments[2]);
    Peer peer = new Peer(NamingFactory.createNamingService(properties));
    ExecutorService running = Executors.newCachedThreadPool();
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = input.readLine()) != null; ) {
      JsonNode command = json.readTree(line);
      if (command.path("op").asText().equals("stop")) {
        peer.run(command);
        Runtime.getRuntime().halt(0);
      }
      running.execute(() -> peer.run(command));
    }
    Runtime.getRuntime().halt(1);
  }

  private void run(JsonNode command) {
    Map<String, Object> answer = new LinkedHashMap<>();
    answer.put("id", command.path("id").asLong());
    try {
      obey(command, answer);
      answer.put("ok", true);
    } catch (Exception error) {
      answer.put("ok", false);
      answer.put("error", error.toString());
    }
    write(answer);
  }

  private void obey(JsonNode command, Map<String, Object> answer) throws Exception {
    String service = command.path("service").asText();
    String group = command.path("group").asText();
    switch (command.path("op").asText()) {
      case "register" -> naming.registerInstance(service, group, host(command.path("host")));
      case "batch" -> {
        List<Instance> hosts = new ArrayList<>();
        for (JsonNode host : command.path("hosts")) hosts.add(host(host));
        naming.batchRegisterInstance(service, group, hosts);
      }
      case "deregister" -> naming.deregisterInstance(service, group, host(command.path("host")));
      case "get" -> answer.put("hosts", told(naming.getAllInstances(service, group, false)));
      case "select" -> answer.put("hosts", told(naming.selectInstances(service, group, true, false)));
      case "services" -> answer.put("services", naming.getServicesOfServer(1, MOST_SERVICES, group).getData());
      case "subscribe" -> {
        long id = command.path("id").asLong();
        EventListener listener =
            event -> {
              if (!(event instanceof NamingEvent change)) return;
              Map<String, Object> list = new LinkedHashMap<>();
              list.put("event", "list");
              list.put("subscription", id);
              list.put("hosts", told(change.getInstances()));
              write(list);
            };
        listeners.put(id, listener);
        naming.subscribe(service, group, listener);
      }
      case "stop" -> naming.shutDown();
      default -> throw new IllegalArgumentException("unknown operation " + command.path("op"));
    }
  }

  /** A host as a command has it; what it leaves out is as the client has it. */
  private static Instance host(JsonNode given) {
    Instance host = new Instance();
    host.setIp(given.path("ip").asText());
    host.setPort(given.path("port").asInt());
    if (given.has("weight")) host.setWeight(given.get("weight").asDouble());
    if (given.has("enabled")) host.setEnabled(given.get("enabled").asBoolean());
    if (given.has("ephemeral")) host.setEphemeral(given.get("ephemeral").asBoolean());
    if (given.has("cluster")) host.setClusterName(given.get("cluster").asText());
    if (given.has("metadata")) {
      host.setMetadata(json.convertValue(given.get("metadata"), new TypeReference<Map<String, String>>() {}));
    }
    return host;
  }

  private static List<Map<String, Object>> told(List<Instance> hosts) {
    List<Map<String, Object>> list = new ArrayList<>();
    for (Instance host : hosts) {
      Map<String, Object> one = new LinkedHashMap<>();
      one.put("ip", host.getIp());
      one.put("port", host.getPort());
      one.put("weight", host.getWeight());
      one.put("healthy", host.isHealthy());
      one.put("enabled", host.isEnabled());
      one.put("ephemeral", host.isEphemeral());
      one.put("cluster", host.getClusterName());
      one.put("metadata", host.getMetadata());
      list.add(one);
    }
    return list;
  }

  private synchronized void write(Map<String, Object> line) {
    try {
      output.println(json.writeValueAsString(line));
      output.flush();
    } catch (IOException error) {
      throw new IllegalStateException(error);
    }
  }
}
