// Browsers start no worker for a page that is opened from disk: there the search runs in a hidden frame of the page.
if (location.protocol === "file:") {
  window.Worker = class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      const frame = Object.assign(document.createElement("iframe"), {hidden: true, title: "search"});
      this.ready = new Promise(resolve => {
        frame.onload = () => {
          const room = frame.contentWindow;
          room.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
          const script = Object.assign(room.document.createElement("script"), {src: url, onload: () => resolve(room)});
          room.document.body.append(script);
        };
      });
      document.body.append(frame);
    }
    postMessage(data) {
      this.ready.then(room => room.dispatchEvent(new MessageEvent("message", {data})));
    }
  };
}
