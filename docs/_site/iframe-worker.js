// Browsers start no worker from a page on a disk; there the search runs in a hidden frame, as a worker would.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.waiting = [];
      addEventListener("message", (event) => {
        if (event.source !== this.frame.contentWindow) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      });
      this.frame.srcdoc = `<script>
        window.postMessage = parent.postMessage.bind(parent);
        window.importScripts = (...urls) => urls.reduce((before, one) => before.then(() => new Promise((done) => {
          const script = document.createElement("script");
          script.src = one;
          script.onload = done;
          document.body.append(script);
        })), Promise.resolve());
      </` + `script><body><script src="${url}"></` + `script>`;
      this.frame.onload = () => {
        const waiting = this.waiting;
        this.waiting = null;
        for (const data of waiting) this.postMessage(data);
      };
      document.body.append(this.frame);
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }
    terminate() { this.frame.remove(); }
  };
}
