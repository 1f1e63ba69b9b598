// Lists the key store of a PKCS#11 module and signs; arguments: configuration file, alias, count. PIN from P11_PIN.
// With a fourth argument it goes on past the count until its standard input ends.
import java.io.IOException;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.Security;
import java.security.Signature;
import java.security.cert.Certificate;
import java.util.Collections;
import java.util.concurrent.atomic.AtomicBoolean;

public final class Sign {
    public static void main(String[] arguments) throws Exception {
        Provider provider = Security.getProvider("SunPKCS11").configure(arguments[0]);
        Security.addProvider(provider);
        KeyStore store = KeyStore.getInstance("PKCS11", provider);
        store.load(null, System.getenv("P11_PIN").toCharArray());
        for (String alias : Collections.list(store.aliases())) {
            System.out.println("ALIAS " + alias + " key=" + store.isKeyEntry(alias));
        }
        PrivateKey key = (PrivateKey) store.getKey(arguments[1], null);
        Certificate certificate = store.getCertificate(arguments[1]);
        int count = Integer.parseInt(arguments[2]);
        AtomicBoolean told = new AtomicBoolean(arguments.length < 4);
        if (!told.get()) {
            Thread listener = new Thread(() -> {
                try {
                    while (System.in.read() >= 0) {
                    }
                } catch (IOException end) {
                    // Whoever told us what to do has gone.
                }
                told.set(true);
            });
            listener.setDaemon(true);
            listener.start();
        }
        System.out.println("READY");
        System.out.flush();
        int index = 0;
        for (; index < count || !told.get(); index++) {
            byte[] data = ("message " + index).getBytes("UTF-8");
            Signature signer = Signature.getInstance("SHA256withRSA", provider);
            signer.initSign(key);
            signer.update(data);
            byte[] signature = signer.sign();
            Signature verifier = Signature.getInstance("SHA256withRSA");
            verifier.initVerify(certificate.getPublicKey());
            verifier.update(data);
            if (!verifier.verify(signature)) {
                throw new IllegalStateException("signature " + index + " does not verify");
            }
        }
        System.out.println("SIGNED " + index);
    }
}
