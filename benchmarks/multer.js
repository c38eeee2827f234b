// The original's second port: node multer.js <certificate folder> <folder for the uploads>; prints its port.
const fs = require('fs');
const https = require('https');
const path = require('path');
const express = require('express');
const multer = require('multer');

const [certs, uploads] = process.argv.slice(2);
const storage = multer.diskStorage({
  destination: (request, file, done) => done(null, uploads),
  filename: (request, file, done) => done(null, `${file.fieldname}-${Date.now()}`),
});
const upload = multer({ storage });
const app = express();

app.post('/nodemodeluploads', upload.array('model', 12), (request, response) => {
  response.json({ message: 'file uploaded!', uploaded: true });
});

const certificate = {
  key: fs.readFileSync(path.join(certs, 'server.key')),
  cert: fs.readFileSync(path.join(certs, 'server.crt')),
};
const server = https.createServer(certificate, app);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
